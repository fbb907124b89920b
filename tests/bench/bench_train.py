#!/usr/bin/python3
"""`make bench-train`: training beside PyTorch's, and generation, as tokens/s and as shares of what the machine gives.

The programs run in turns, so that whatever else the machine does falls on both, and `millrace bench machine` runs in every round, so that
shares are of the same hour. Tokens/s are the median over the rounds of each run's median step, GFLOP/s follow from them; the best is of
all steps. Peaks of the machine are the best of all rounds. Memory is the process's peak. Where there is no PyTorch, ours runs alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPE = ("n_layer", "n_head", "n_embd", "batch", "sequence")
CASES = {  # name -> shape, steps of a run
    "124m": ((12, 12, 768, 4, 512), 3),  # GPT-2's smallest
    "124m-b1": ((12, 12, 768, 1, 512), 5),
    "small": ((6, 6, 384, 12, 256), 5),
    "example": ((4, 4, 256, 8, 256), 5),
}
REAL = ("124m-real", (12, 12, 768, 1, 1024), 3)  # the context that GPT-2 was trained with
GENERATE = ["--n-layer=12", "--n-head=12", "--n-embd=768"]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0], formatter_class=argparse.RawTextHelpFormatter)
    shapes = "\n".join(f"{name}: {','.join(map(str, shape))}" for name, (shape, _) in CASES.items())
    parser.add_argument("--cases", nargs="+", default=[*CASES, "generate"], metavar="CASE",
                        help=f"generate, any {','.join(SHAPE)}, or one of (default: all)\n{shapes}")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"], help="to train with (default: both)")
    parser.add_argument("--real", action="store_true", help="also 124M at a context of 1024, ours alone")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program (default: 3)")
    parser.add_argument("--steps", type=int, help="measured steps of a run (default: 3 to 5)")
    parser.add_argument("--seconds", type=float, default=4, help="to measure the machine, each round (default: 4)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--program", default=os.path.join(os.environ.get("MILLRACE_BUILD", "build"), "millrace"))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    a = parser.parse_args()
    a.train = [(name, *shape_of(parser, name)) for name in a.cases if name != "generate"] + ([REAL] if a.real else [])
    return a


def shape_of(parser, name):
    """A case's shape and steps."""
    if name in CASES:
        return CASES[name]
    numbers = name.split(",")
    if len(numbers) != len(SHAPE) or not all(number.isdigit() for number in numbers):
        parser.error(f"--cases {name}: generate, {', '.join(CASES)}, or the five numbers {','.join(SHAPE)}")
    return tuple(map(int, numbers)), 5


# ---- Measuring -----------------------------------------------------------------------------------------------------------------


def measure(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def commands(a, torch):
    """(what, dtype, program) -> command, in the order of a round."""
    ours = [a.program, "bench"]
    yield ("machine", "", "millrace"), [*ours, "machine", f"--threads={a.threads}", f"--seconds={a.seconds}", "--json"]
    for name, (layers, heads, embd, batch, length), steps in a.train:
        shape = [f"--n-layer={layers}", f"--n-head={heads}", f"--n-embd={embd}", f"--batch={batch}", f"--sequence={length}"]
        theirs = [f"--layers={layers}", f"--heads={heads}", f"--embd={embd}", f"--batch={batch}", f"--length={length}"]
        rest = [f"--threads={a.threads}", f"--steps={a.steps or steps}"]
        for dtype in a.dtypes:
            yield (name, dtype, "millrace"), [*ours, "train", *shape, *rest, f"--dtype={dtype}", "--json"]
            if torch and name != REAL[0]:
                script = [sys.executable, os.path.join(HERE, "torch_train.py")]
                yield (name, dtype, "pytorch"), [*script, *theirs, *rest, *(["--bf16"] if dtype == "bf16" else [])]
    for dtype in ("fp32", "bf16", "int8") if "generate" in a.cases else ():
        yield ("generate", dtype, "millrace"), [*ours, "generate", *GENERATE, f"--threads={a.threads}", f"--dtype={dtype}", "--json"]


def rounds(a, torch):
    """(what, dtype, program) -> results of all rounds."""
    results = {}
    for number in range(1, a.rounds + 1):
        for key, command in commands(a, torch):
            result = measure(command)
            results.setdefault(key, []).append(result)
            told = (f"{result['tokens_per_second_median']:.1f} tokens/s (best {result['tokens_per_second_best']:.1f}), "
                    f"{result['peak_rss_bytes'] / 2**20:.0f} MiB" if "tokens_per_second_best" in result
                    else ", ".join(f"{name} {value:.1f}" for name, value in result.items() if name != "threads"))
            print(f"round {number}: {' '.join(word for word in key if word)}: {told}", file=sys.stderr, flush=True)
    return results


# ---- From results to rows ------------------------------------------------------------------------------------------------------


def best_of(machine):
    return {name: max(result[name] for result in machine) for name in machine[0]}


def summary(results):
    median = statistics.median(result["tokens_per_second_median"] for result in results)
    told = {
        "tokens_per_second_median": median,
        "tokens_per_second_best": max(result["tokens_per_second_best"] for result in results),
        "peak_rss_bytes": max(result["peak_rss_bytes"] for result in results),
    }
    for field in ("gflops", "gbytes_per_second"):  # those of a run belong to its median step
        if field in results[0]:
            told[field] = results[0][field] / results[0]["tokens_per_second_median"] * median
    return told


def train_rows(results, machine):
    for (name, dtype, program), ours in results.items():
        if program != "millrace" or name in ("machine", "generate"):
            continue
        # Without products of bfloat16 pairs the rounded numbers are multiplied as float32.
        peak = machine.get("bf16_gflops", machine["fp32_gflops"]) if dtype == "bf16" else machine["fp32_gflops"]
        row = {"case": name, "dtype": dtype, "millrace": summary(ours), "pytorch": None}
        if (name, dtype, "pytorch") in results:
            row["pytorch"] = summary(results[name, dtype, "pytorch"])
            row["ratio"] = row["millrace"]["tokens_per_second_median"] / row["pytorch"]["tokens_per_second_median"]
            row["memory_ratio"] = row["millrace"]["peak_rss_bytes"] / row["pytorch"]["peak_rss_bytes"]
        for program in ("millrace", "pytorch"):
            if row[program]:
                row[program]["share_of_peak"] = row[program]["gflops"] / peak
        yield row


def generate_rows(results, machine):
    for (name, dtype, _), ours in results.items():
        if name == "generate":
            row = {"dtype": dtype, **summary(ours), "bytes_of_weights": ours[0]["bytes_of_weights"]}
            row["prefill_tokens_per_second"] = statistics.median(result["prefill_tokens_per_second"] for result in ours)
            row["share_of_read_bandwidth"] = row["gbytes_per_second"] / machine["read_gbytes_per_second"]
            yield row


# ---- Printing ------------------------------------------------------------------------------------------------------------------


def speed(told):
    if not told:
        return f"{'-':>18} {'-':>8} {'-':>6} {'-':>8}"
    both = f"{told['tokens_per_second_median']:.0f} ({told['tokens_per_second_best']:.0f})"
    return f"{both:>18} {told['gflops']:8.1f} {told['share_of_peak']:6.1%} {told['peak_rss_bytes'] / 2**20:8.0f}"


def print_tables(a, machine, train, generate):
    told = [f"float32 {machine['fp32_gflops']:.1f} GFLOP/s"]
    told += [f"bfloat16 {machine['bf16_gflops']:.1f} GFLOP/s"] if "bf16_gflops" in machine else []
    told += [f"int8 {machine['int8_gops']:.1f} GOP/s"] if "int8_gops" in machine else []
    told += ["memory " + ", ".join(f"{way} {machine[way + '_gbytes_per_second']:.1f}" for way in ("read", "copy", "triad")) + " GB/s"]
    print(f"{a.threads} threads, {a.rounds} rounds; the machine's peaks: {'; '.join(told)}")
    if train:
        each = f"{'tokens/s (best)':>18} {'GFLOP/s':>8} {'peak':>6} {'MiB':>8}"
        print(f"\n{'':16} {'':4} | {'millrace':43} | {'PyTorch':43} |")
        print(f"{'train':16} {'':4} | {each} | {each} | {'speed':>6} {'memory':>6}")
    for row in train:
        ratios = f"{row['ratio']:6.2f} {row['memory_ratio']:6.2f}" if row["pytorch"] else f"{'-':>6} {'-':>6}"
        print(f"{row['case']:16} {row['dtype']} | {speed(row['millrace'])} | {speed(row['pytorch'])} | {ratios}")
    if generate:
        print(f"\n{'generate 124m':21} | {'tokens/s (best)':>18} {'GB/s':>8} {'read':>6} {'MiB':>8} | prompt tokens/s")
    for row in generate:
        both = f"{row['tokens_per_second_median']:.1f} ({row['tokens_per_second_best']:.1f})"
        print(f"{'':16} {row['dtype']} | {both:>18} {row['gbytes_per_second']:8.1f} {row['share_of_read_bandwidth']:6.1%} "
              f"{row['peak_rss_bytes'] / 2**20:8.0f} | {row['prefill_tokens_per_second']:.0f}")


def main():
    a = parse()
    torch = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode == 0
    if not torch:
        print(f"{sys.executable} has no PyTorch: millrace runs alone", file=sys.stderr)
    results = rounds(a, torch)
    machine = best_of(results["machine", "", "millrace"])
    train, generate = list(train_rows(results, machine)), list(generate_rows(results, machine))
    if a.json:
        rows = [{"what": what, "dtype": dtype, "program": program, "rounds": of} for (what, dtype, program), of in results.items()]
        print(json.dumps({"machine": machine, "train": train, "generate": generate, "results": rows}))
    else:
        print_tables(a, machine, train, generate)


if __name__ == "__main__":
    main()
