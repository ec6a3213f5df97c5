//! RNS-CKKS homomorphic encryption with bootstrapping.
