//! Functions to certified polynomials: minimax, Chebyshev, Goldschmidt and Newton schemes, evaluation plans.
