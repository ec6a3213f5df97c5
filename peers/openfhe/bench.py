"""Times OpenFHE (its Python wheel) on the operations that `cargo xtask bench --peers` compares.

bench.py ops    N = 2^14, 2^15, 2^16: the levelled operations
bench.py boot   N = 2^16, 128-bit: bootstrapping with 2^15 and 2^10 slots
OMP_NUM_THREADS selects the threads. Each row is one JSON object on a line of its own.
"""

import importlib.metadata
import json
import random
import resource
import statistics
import sys
import time

import numpy as np
import openfhe as fhe

PEER = "openfhe " + importlib.metadata.version("openfhe")


def timed(body, runs=7, budget=2.0):
    """Wall times of body() in ns, one warm-up not counted."""
    body()
    times, end = [], time.perf_counter() + budget
    while len(times) < runs or (time.perf_counter() < end and len(times) < 40):
        start = time.perf_counter_ns()
        body()
        times.append(time.perf_counter_ns() - start)
    return times


def row(name, times, params, **metrics):
    print(
        json.dumps(
            dict(
                id=name,
                params=params,
                median_ns=float(statistics.median(times)),
                min_ns=float(min(times)),
                max_ns=float(max(times)),
                samples=len(times),
                peer=PEER,
                metrics=metrics,
            )
        ),
        flush=True,
    )


def context(log_n, depth, scale, digits, secret, secure, technique, first):
    p = fhe.CCParamsCKKSRNS()
    p.SetSecurityLevel(fhe.HEStd_128_classic if secure else fhe.HEStd_NotSet)
    p.SetRingDim(1 << log_n)
    p.SetMultiplicativeDepth(depth)
    p.SetScalingModSize(scale)
    p.SetFirstModSize(first)
    p.SetScalingTechnique(technique)
    p.SetKeySwitchTechnique(fhe.HYBRID)
    p.SetNumLargeDigits(digits)
    p.SetSecretKeyDist(secret)
    cc = fhe.GenCryptoContext(p)
    for feature in (fhe.PKE, fhe.KEYSWITCH, fhe.LEVELEDSHE, fhe.ADVANCEDSHE, fhe.FHE):
        cc.Enable(feature)
    return cc


def bits(got, want):
    error = np.abs(np.asarray(got)[: len(want)] - np.asarray(want))
    return float(-np.log2(error.max() + 1e-300)), float(-np.log2(error.mean() + 1e-300))


def ops(log_n, depth, scale):
    cc = context(log_n, depth, scale, 3, fhe.UNIFORM_TERNARY, False, fhe.FIXEDMANUAL, 60)
    n, degree = 1 << (log_n - 1), 1 << log_n
    params = f"N=2^{log_n}, {depth} levels x {scale} bits, dnum 3, dense ternary, FIXEDMANUAL"
    x = [random.uniform(-1, 1) for _ in range(n)]
    y = [random.uniform(-1, 1) for _ in range(n)]
    keys = cc.KeyGen()
    cc.EvalMultKeyGen(keys.secretKey)
    shifts = list(range(1, 9))
    cc.EvalRotateKeyGen(keys.secretKey, shifts)
    px, py = cc.MakeCKKSPackedPlaintext(x), cc.MakeCKKSPackedPlaintext(y)
    a, b = cc.Encrypt(keys.publicKey, px), cc.Encrypt(keys.publicKey, py)

    def hoisted():
        digits = cc.EvalFastRotationPrecompute(a)
        for shift in shifts:
            cc.EvalFastRotation(a, shift, 2 * degree, digits)

    product = cc.Decrypt(cc.Rescale(cc.EvalMult(a, b)), keys.secretKey)
    product.SetLength(n)
    worst, mean = bits(product.GetRealPackedValue(), np.array(x) * np.array(y))
    bodies = {
        "mul_relin_rescale": lambda: cc.Rescale(cc.EvalMult(a, b)),
        "rotate": lambda: cc.EvalRotate(a, 1),
        "hoisted8": hoisted,
        "mul_plain_rescale": lambda: cc.Rescale(cc.EvalMult(a, py)),
        "add": lambda: cc.EvalAdd(a, b),
        "encode": lambda: cc.MakeCKKSPackedPlaintext(x),
        "encrypt": lambda: cc.Encrypt(keys.publicKey, px),
        "decrypt_decode": lambda: cc.Decrypt(a, keys.secretKey),
    }
    for name, body in bodies.items():
        extra = dict(bits_worst_uniform=worst, bits_mean=mean) if name == "mul_relin_rescale" else {}
        row(f"evaluator/{name}/{degree}", timed(body), params, **extra)


def boot(log_slots, name):
    log_n, scale, after, budget, secret = 16, 50, 6, 3, fhe.SPARSE_ENCAPSULATED
    depth = after + fhe.CryptoContext.GetBootstrapDepth([budget, budget], secret)
    cc = context(log_n, depth, scale, 3, secret, True, fhe.FLEXIBLEAUTO, scale + 7)
    slots = 1 << log_slots
    cc.EvalBootstrapSetup([budget, budget], [0, 0], slots)
    keys = cc.KeyGen()
    cc.EvalMultKeyGen(keys.secretKey)
    start = time.perf_counter()
    cc.EvalBootstrapKeyGen(keys.secretKey, slots)
    keygen = time.perf_counter() - start
    x = [random.uniform(-1, 1) for _ in range(slots)]
    ct = cc.Encrypt(keys.publicKey, cc.MakeCKKSPackedPlaintext(x, 1, depth - 1, None, slots))
    times, out = [], None
    for _ in range(3):
        start = time.perf_counter_ns()
        out = cc.EvalBootstrap(ct)
        times.append(time.perf_counter_ns() - start)
    left = depth - out.GetLevel() - (out.GetNoiseScaleDeg() - 1)
    got = cc.Decrypt(out, keys.secretKey)
    got.SetLength(slots)
    worst, mean = bits(got.GetRealPackedValue(), x)
    row(
        f"bootstrap/{name}/65536",
        times,
        f"N=2^16, 2^{log_slots} slots, scale 2^50, depth {depth}, dnum 3, level budget [3,3], sparse encapsulated, 128-bit",
        levels_left=left,
        scale_bits=scale,
        bits_worst_uniform=worst,
        bits_mean=mean,
        seconds_keygen=keygen,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    random.seed(1)
    if sys.argv[1] == "ops":
        for log_n, depth, scale in ((14, 8, 40), (15, 16, 45), (16, 24, 45)):
            ops(log_n, depth, scale)
    else:
        boot(15, "full")
        boot(10, "sparse1024")
