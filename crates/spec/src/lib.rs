//! A transformer as data: shape, weights, polynomial sites with certified ranges, tokenizer, and a plain f64 reference.
