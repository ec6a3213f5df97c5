//! PowerSoftmax transformers in burn: training, range control, evaluation, export.
