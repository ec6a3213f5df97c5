//! Shared parameter sets for the criterion targets.
