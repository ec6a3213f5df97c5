use super::*;
use crate::random;
use crate::shape::{Attention, Eps};
use cipherlm_testing::Scratch;

/// A softmax model, and one with changed queries, a changed gain and frozen epsilons.
fn pair(rank: usize) -> (Model, Model) {
    let shape = Shape { attention: Attention::Softmax, ..Shape::preset("test").unwrap() };
    let base = random::weights_only("base", &shape, 3).unwrap();
    let frozen = Attention::PowerSoftmax { p: 4, c: 3.0, eps: Eps::Frozen };
    let shape = Shape { attention: frozen, ..shape };
    let mut weights = base.weights().clone();
    let d = shape.d_model;
    let wave = |i: usize| (0.31 * i as f32).sin();
    let a: Vec<f32> = (0..d * rank).map(|i| wave(7 * i + 1)).collect();
    let b: Vec<f32> = (0..rank * d).map(|i| 0.1 * wave(3 * i + 2)).collect();
    let change = rank::product(&a, &b, d, rank, d);
    for (name, change) in [("layers.0.attn.q.weight", &change[..]), ("layers.1.norm1.gain", &change[..d])] {
        let old = weights.tensor(name).unwrap().clone();
        let new = old.data.iter().zip(change).map(|(x, d)| x + f64::from(*d)).collect();
        weights.insert(name, &old.dims, new).unwrap();
    }
    for l in 0..shape.layers {
        let eps = (0..shape.heads * shape.context).map(|i| 2f64.powi(i as i32 % 20 - 10)).collect();
        weights.insert(format!("layers.{l}.attn.eps"), &[shape.heads, shape.context], eps).unwrap();
    }
    (base, Model::new("converted", shape, weights).unwrap())
}

fn how() -> Difference {
    let (folder, fetch) = ("public".into(), "fetch it".into());
    Difference { rank: None, whole: vec![], at_most: 1 << 20, folder, fetch }
}

#[test]
fn a_low_rank_change_comes_back_to_half_precision_and_eight_bits_to_theirs() {
    for (rank, tolerance) in [(Some(2), 2e-3), (None, 1e-2)] {
        let folder = Scratch::new(&format!("{rank:?}").replace(['(', ')'], ""));
        let (base, model) = pair(2);
        let how = Difference { rank, ..how() };
        let report = write(&base, &model, &how, &folder).unwrap();
        assert_eq!(report.tensors, 4);
        assert!(report.lost < tolerance, "{report:?}");
        let again = apply(&base, &folder.join(DIFFERENCE_FILE)).unwrap();
        assert_eq!((again.shape(), &again.spec().name), (model.shape(), &model.spec().name));
        for (name, tensor) in model.weights().iter() {
            let found = again.weights().values(name).unwrap();
            let worst = found.iter().zip(&tensor.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let exact = name.ends_with("attn.eps") || base.weights().values(name) == Some(&tensor.data[..]);
            assert!(worst <= if exact { 0.0 } else { tolerance }, "{name}: {worst}");
        }
    }
}

#[test]
fn another_base_a_damaged_file_and_too_large_a_difference_are_refused() {
    let folder = Scratch::new("refused");
    let (base, model) = pair(2);
    let how = Difference { rank: Some(2), ..how() };
    write(&base, &model, &how, &folder).unwrap();
    let path = folder.join(DIFFERENCE_FILE);
    let other = random::weights_only("other", base.shape(), 4).unwrap();
    let error = apply(&other, &path).unwrap_err().to_string();
    assert!(
        error.contains(&base.spec().weights_blake3) && error.contains(&other.spec().weights_blake3),
        "{error}"
    );
    let bytes = std::fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &bytes[..bytes.len() - 3]] {
        std::fs::write(&path, damaged).unwrap();
        assert!(matches!(apply(&base, &path), Err(Error::Malformed { .. })));
    }
    let error = write(&base, &model, &Difference { at_most: 500, ..how }, &folder).unwrap_err().to_string();
    assert!(error.contains("at most 500 "), "{error}");
}

#[test]
fn a_folder_with_a_difference_loads_beside_its_base_and_says_how_to_get_it() {
    let all = Scratch::new("folder");
    let folder = all.join("shipped");
    let (base, model) = pair(2);
    write(&base, &model, &how(), &folder).unwrap();
    let shipped = apply(&base, &folder.join(DIFFERENCE_FILE)).unwrap();
    shipped.save_description(&folder).unwrap();
    let error = load(&folder).unwrap_err().to_string();
    assert!(error.contains("`fetch it`") && error.contains("shipped/base"), "{error}");
    for place in [folder.join("base"), all.join("base/public")] {
        base.save(&place).unwrap();
        assert_eq!(load(&folder).unwrap(), shipped);
        std::fs::remove_dir_all(&place).unwrap();
    }
    // A description of other weights than the difference makes.
    base.save(&folder.join("base")).unwrap();
    model.save_description(&folder).unwrap();
    assert!(matches!(load(&folder), Err(Error::WeightsHash { .. })));
    for name in ["..", "a/b", "/", ""] {
        assert_eq!(places(&folder, name).len(), 1, "{name}");
    }
}

#[test]
fn a_matrix_named_as_whole_loses_nothing_of_its_rank() {
    let folder = Scratch::new("whole");
    let (base, model) = pair(4);
    let lost = |whole: Vec<String>| {
        let how = Difference { rank: Some(1), whole, ..how() };
        write(&base, &model, &how, &folder).unwrap().lost
    };
    let (ranked, whole) = (lost(vec![]), lost(vec!["attn.q".into()]));
    assert!(ranked > 0.2 && whole < 0.01, "{ranked} at rank 1, {whole} whole");
}

/// A difference of these tensors and that shape, with its hash right.
fn forged(base: &Model, shape: &Shape, raw: &Raw) -> Vec<u8> {
    let view = |(n, t, d, b): &(String, Dtype, Vec<usize>, Vec<u8>)| {
        (n.clone(), TensorView::new(*t, d.clone(), b).unwrap().dtype(), d.clone(), b.clone())
    };
    let owned: Raw = raw.iter().map(view).collect();
    let views: Vec<_> =
        owned.iter().map(|(n, t, d, b)| (n.as_str(), TensorView::new(*t, d.clone(), b).unwrap())).collect();
    let fields = [
        ("base_weights_blake3", base.spec().weights_blake3.clone()),
        ("base_name", "base".into()),
        ("name", "forged".into()),
        ("shape", serde_json::to_string(shape).unwrap()),
        ("blake3", digest(raw)),
    ];
    serialize(views, Some(fields.map(|(k, v)| (k.to_owned(), v)).into())).unwrap()
}

#[test]
fn a_file_that_claims_more_than_it_holds_is_refused_before_memory_is_taken() {
    let folder = Scratch::new("claims");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(DIFFERENCE_FILE);
    let (base, model) = pair(2);
    let refused = |shape: &Shape, raw: Raw, words: &str| {
        std::fs::write(&path, forged(&base, shape, &raw)).unwrap();
        let error = apply(&base, &path).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let zeros = |name: &str, dtype: Dtype, dims: &[usize]| {
        let bytes = dims.iter().product::<usize>() * if dtype == Dtype::I8 { 1 } else { 2 };
        (name.to_owned(), dtype, dims.to_vec(), vec![0; bytes])
    };
    // Four megabytes of factors of a matrix of 2^40 values.
    let q = "layers.0.attn.q.weight";
    let (a, b) = ([1 << 20, 1], [1, 1 << 20]);
    let factors = [("/a", a), ("/b", b)].map(|(kind, dims)| zeros(&format!("{q}{kind}"), Dtype::F16, &dims));
    refused(base.shape(), factors.into(), "make no `layers.0.attn.q.weight`");
    // Tensors that neither file has: epsilons of 2^20 rows, a head of more classes than memory.
    let long = Shape { context: 1 << 20, ..model.shape().clone() };
    refused(&long, Raw::new(), "is neither in it nor in its base");
    let many = Shape { kind: crate::shape::Kind::Encoder { classes: usize::MAX }, ..base.shape().clone() };
    refused(&many, Raw::new(), "kind.classes");
    // Half of a pair, two forms at once, strange names, other types.
    refused(base.shape(), vec![zeros(&format!("{q}/a"), Dtype::F16, &[4, 1])], "do not fit each other");
    let twice = vec![zeros(q, Dtype::F16, &[4]), zeros(&format!("{q}/steps"), Dtype::I8, &[2, 2])];
    refused(base.shape(), twice, "do not fit each other");
    refused(base.shape(), vec![zeros("layers.9.attn.q.weight/a", Dtype::F16, &[4, 1])], "belongs to no");
    refused(base.shape(), vec![zeros(q, Dtype::I16, &[4])], "is of type I16");
}

#[test]
fn a_tensor_of_zeros_that_the_base_lacks_is_written() {
    let folder = Scratch::new("zeros");
    let (base, model) = pair(2);
    let shape = Shape { activation: crate::shape::Activation::Quadratic, ..model.shape().clone() };
    let mut weights = model.weights().clone();
    for (name, dims) in shape.tensors() {
        if weights.values(&name).is_none() {
            weights.insert(name, &dims, vec![0.0; dims.iter().product()]).unwrap();
        }
    }
    let lean = Model::new("lean", shape, weights).unwrap();
    write(&base, &lean, &how(), &folder).unwrap();
    let again = apply(&base, &folder.join(DIFFERENCE_FILE)).unwrap();
    assert_eq!(again.shape(), lean.shape());
}

#[test]
fn a_base_with_shared_key_heads_has_them_repeated_where_the_difference_wants_it() {
    let folder = Scratch::new("shared");
    let shape = Shape { attention: Attention::Softmax, ..Shape::preset("test").unwrap() };
    let shape = Shape { kv_heads: Some(1), ..shape };
    assert!(shape.heads > 1);
    let base = random::weights_only("base", &shape, 3).unwrap();
    let repeated = base.with_repeated_heads().unwrap();
    let mut weights = repeated.weights().clone();
    let old = weights.tensor("layers.0.attn.k.weight").unwrap().clone();
    let new = old.data.iter().enumerate().map(|(i, x)| x + (0.3 * i as f64).sin()).collect();
    weights.insert("layers.0.attn.k.weight", &old.dims, new).unwrap();
    let model = Model::new("converted", repeated.shape().clone(), weights).unwrap();
    write(&repeated, &model, &how(), &folder).unwrap();
    let path = folder.join(DIFFERENCE_FILE);
    assert_eq!(apply(&base, &path).unwrap(), apply(&repeated, &path).unwrap());
    let other = random::weights_only("other", &shape, 4).unwrap();
    let error = apply(&other, &path).unwrap_err().to_string();
    assert!(error.contains(&other.spec().weights_blake3), "{error}");
}
