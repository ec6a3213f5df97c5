//! RNS polynomial arithmetic for lattice cryptography: fast negacyclic NTT, basis extension, samplers.
