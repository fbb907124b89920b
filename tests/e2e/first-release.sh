#!/bin/sh
# Makes first-release.tar.xz beside it: an output_dir that the first release left in the middle of training. Takes that release's binary:
#     git worktree add /tmp/first 688a6c8 && make -C /tmp/first && tests/e2e/first-release.sh /tmp/first/build/millrace
set -eu
millrace=$1
target=$(cd "$(dirname "$0")" && pwd)/first-release.tar.xz
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir text
for i in 1 2 3 4 5 6; do
    for j in 1 2 3 4 5 6 7 8 9 10 11 12; do
        echo "document $i, line $j: the wheel turned $((i * j * 37)) times and the river was $((j * j)) deep"
    done > "text/$i.txt"
done
"$millrace" tokenizer train text/1.txt text/2.txt --vocab-size 280 --output tokenizer > /dev/null
cat > pipeline.yaml << 'END'
run_name: old
output_dir: out
cluster: { workers: 1 }
dataset: { sources: [ "text/*.txt" ], tokenizer: tokenizer, sequence_length: 16, validation_fraction: 0.3 }
model: { n_layer: 1, n_head: 2, n_embd: 8, n_positions: 16 }
training: { global_batch: 4, slices: 2, max_steps: 40, learning_rate: 0.003, warmup_steps: 2, eval_steps: 10, save_steps: 5 }
sample: { prompt: "" }
END
"$millrace" run pipeline.yaml --json > /dev/null 2>&1 &
until grep -q '"step": 7' out/metrics.jsonl 2> /dev/null; do sleep 0.002; done
kill -INT $!
wait $! || true
rm -rf out/logs out/checkpoint-5 # not needed to go on
tar -cJf "$target" --format=posix --owner=0 --group=0 pipeline.yaml text tokenizer out
