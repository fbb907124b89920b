"""Bugs that some test has to catch: a text of the code, what it becomes, and the tests that should fail then. An edit applies when its text
is in its file exactly once; whoever moves the code moves the text here, too (tests/repo/test_mutants.py says where).
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str  # what is planted
    file: str
    old: str
    new: str
    tests: tuple  # pytest's names; the first that fails catches it


def unit(*names):
    return tuple(f"tests/unit/{name}.c" for name in names)


def e2e(*names):
    return tuple(f"tests/e2e/test_{name}" for name in names)


MUTANTS = [
    # ---- base
    Mutant("a new name's folder is not synced", "base/file.c", "    int code = folder_sync(parent);\n", "    int code = 0;\n",
           unit("base/durable")),
    Mutant("a failed fsync is ignored", "base/file.c", "process_last_words(err_text());\n        _exit(1);", "return;",
           unit("base/durable")),
    Mutant("a draft is renamed before it is on the disk", "base/file.c", "    sync_or_die(draft->fd, draft->draft_path);\n", "",
           unit("base/durable")),
    Mutant("drafts of living processes are swept", "base/file.c", "(kill(writer, 0) == 0 || errno != ESRCH)", "false",
           unit("base/durable")),
    Mutant("a pool forgets its last item", "base/pool.c", "if (item >= pool->items) return;",
           "if (item + 1 >= pool->items) { if (item < pool->items) atomic_fetch_sub(&pool->left, 1); return; }",
           unit("base/pool")),
    Mutant("one round of Philox less", "base/philox.h", "round < 10; round++", "round < 9; round++", unit("base/hash")),
    # ---- config
    Mutant("a number at its open end is accepted", "config/value.c", "(field->max_open ? value < field->max : value <= field->max)",
           "value <= field->max", unit("config/limits", "config/config")),
    Mutant("keys that alter results count as harmless", "config/report.c", "field->alters ? altering : harmless", "harmless",
           unit("config/print", "config/config") + e2e("user.py", "interrupt.py", "commands.py")),
    # ---- proto
    Mutant("a message's digest is not looked at", "proto/frame.c",
           "if (!digest_fits(header_bytes, header_size, sent, sent_bytes)) return", "if (0) return", unit("proto/frame")),
    Mutant("a message's caps are not looked at", "proto/frame.c",
           "    TRY(check_caps(kind, header->body_size, header->raw_size - header->body_size));\n", "", unit("proto/frame")),
    Mutant("members hold what they have, however scattered", "proto/steps.c", "        if (most <= NODES_MAX) return;\n",
           "        return;\n", unit("proto/steps", "workers/exchange")),
    Mutant("a sum over slices runs from left to right", "proto/steps.c", "for (; slice >> level & 1; level++) sum = sums[level] + sum;",
           "for (; slice >> level & 1; level++) sum = sum + sums[level] * (1 + 1e-15);", unit("proto/steps")),
    Mutant("an answer is taken twice", "proto/reads.c", "        *out = reads->read[i];\n        drop(reads, i);",
           "        *out = reads->read[i];", unit("proto/reads")),
    Mutant("connections that nobody uses stay open", "proto/link.c", "now_ms - source->used_ms < idle_ms", "idle_ms >= 0",
           unit("proto/link")),
    Mutant("a lost message is not missed", "proto/session.c", "    if (number > expected) return SESSION_GAP;\n", "",
           unit("proto/session")),
    # ---- dataset
    Mutant("a frame's digest is not looked at", "dataset/shard.c", "if (memcmp(digest, frame->digest.data, sizeof digest) != 0)", "if (0)",
           unit("dataset/shard_damage", "dataset/shard")),
    Mutant("a manifest's digest is not looked at", "dataset/seal.c", "if (memcmp(digest, seal->digest, sizeof digest) != 0)", "if (0)",
           unit("dataset/manifest", "dataset/shard_damage", "dataset/shard")),
    Mutant("every epoch has the first one's order", "dataset/order.c", "permutation_of(seed, epoch, ORDER_WINDOW, number, count)",
           "permutation_of(seed, 0, ORDER_WINDOW, number, count)", unit("dataset/order")),
    Mutant("a merge looks at its left neighbour alone", "dataset/bpe.c",
           "        if (at > 0) merge[at - 1] = vocabulary_merge(v, id[at - 1], id[at]);\n",
           "", unit("dataset/tokenizer")),
    Mutant("a file that was another one for a moment passes", "dataset/identity.c", "    if (fd < 0) return 0;\n    return fstat",
           "    return 0;\n    return fstat", unit("dataset/sources")),
    Mutant("a head that ends within a character is ill-formed", "dataset/content.c", "        if (length == 0 && cut) break;",
           "        if (0) break;", unit("dataset/content")),
    Mutant("of a nested field that comes twice the first counts", "dataset/json_text.c", "    search->nested.kind = FOUND_NOTHING;\n", "",
           unit("dataset/json_text")),
    Mutant("what was passed of a long record counts for the next one", "dataset/records.c", "r->passing = PASS_NOTHING, r->passed = 0;",
           "r->passing = PASS_NOTHING;", unit("dataset/records")),
    # ---- model
    Mutant("weight decay reaches no tensor", "model/optimizer.c", "k->adamw_update(p, m, v, g, count, &run->adam[decay]); break;",
           "k->adamw_update(p, m, v, g, count, &run->adam[0]); break;", unit("model/optimizer", "model/golden")),
    Mutant("a checkpoint's digests are not looked at", "model/checkpoint.c", "if (code == 0 && memcmp(real, told, SHA256_BYTES) != 0)",
           "if (0)", unit("model/checkpoint")),
    Mutant("the average begins at 0", "model/optimizer.c", "memcpy(state[STATE_EMA], state[STATE_WEIGHTS], elements * sizeof(float));",
           "memset(state[STATE_EMA], 0, elements * sizeof(float));", unit("model/optimizer", "model/golden")),
    Mutant("attention forgets its scale", "model/attention.c",
           "kernel_set()->panel_softmax(scores, max, factor, p.keys, p.low, p.high, a->scale,",
           "kernel_set()->panel_softmax(scores, max, factor, p.keys, p.low, p.high, 1.0f,", unit("model/golden")),
    Mutant("a record of a checkpoint names files elsewhere", "model/checkpoint_record.c", " || strchr(name, '/')", "",
           unit("model/checkpoint")),
    Mutant("two names of one tensor are taken", "model/tensor_map.c",
           "if (strcmp(map->tensor[i - 1].name, map->tensor[i].name) == 0)", "if (0)", unit("model/foreign")),
    Mutant("a checkpoint under another number is the newest", "model/checkpoint_folder.c", "code == 0 && state.step != step", "0",
           unit("model/checkpoint")),
    Mutant("older checkpoints go though no newer one is good", "model/checkpoint_folder.c", "good + 1 > keep ? good + 1 : keep", "keep",
           unit("model/checkpoint")),
    Mutant("a checkpoint that changes while it is read is damaged", "model/checkpoint.c", "tries == TRIES_MAX || !there", "true",
           unit("model/checkpoint")),
    # ---- coordinator
    Mutant("after one step keys that alter results may still change", "coordinator/changes.c", "if (code == 0 && beside.size && done)",
           "if (code == 0 && beside.size && done > 1)", unit("coordinator/changes")),
    Mutant("a coordinator starts under the generation of the one before", "coordinator/coordinator.c", "    c->generation++;\n", "",
           e2e("generations.py")),
    Mutant("the generation of a DONE is not looked at", "coordinator/jobs.c", "envelope->attempt >> 32 == c->generation && ", "",
           e2e("generations.py")),
    Mutant("how long workers live otherwise plays no part", "coordinator/queue.c",
           "    return job->losses > QUEUE_LOSSES_TIMES * otherwise;\n", "    return otherwise >= 0;\n", unit("coordinator/queue")),
    Mutant("a result under an old lease counts", "coordinator/queue.c",
           "j->state == JOB_LEASED && j->attempt == attempt && j->worker == worker",
           "j->state == JOB_LEASED && j->worker == worker", unit("coordinator/queue")),
    Mutant("who is asked to leave goes with a state that nobody else has", "coordinator/trainer.c",
           "    if (!may_hold_state(t, m)) return true;\n", "    return true;\n", unit("coordinator/leaving", "coordinator/simulation")),
    Mutant("a run whose workers all leave is done before its last evaluation", "coordinator/trainer.c",
           "t->options.max_steps && !evaluation_missing(t) && !t->saving", "t->options.max_steps && !t->saving",
           unit("coordinator/leaving", "coordinator/simulation")),
    Mutant("half of the members are a majority", "coordinator/trainer.c", "    if (best * 2 <= ready) *out = NULL;\n",
           "    if (best * 2 < ready) *out = NULL;\n", unit("coordinator/trainer", "coordinator/simulation")),
    Mutant("a step commits before all of its slices are counted", "coordinator/trainer.c",
           "    if (slice_count(&t->counted) != t->options.slices) return;\n", "",
           unit("coordinator/trainer", "coordinator/simulation")),
    Mutant("a step commits while somebody reads the state", "coordinator/trainer.c",
           "        if (m->state == MEMBER_JOINING) return; /* it reads the state that a commit would change */\n", "",
           unit("coordinator/trainer", "coordinator/simulation")),
    Mutant("rows of the store are not looked at", "coordinator/store_check.c", "        if (bad_rows(db, i) != 0) return false;\n", "",
           unit("coordinator/store")),
    Mutant("an evaluation that is no number comes back as 0", "coordinator/store.c",
           "(uint64_t)sqlite3_column_int64(statement, 1), .loss = number_or_nan(statement, 2)};",
           "(uint64_t)sqlite3_column_int64(statement, 1), .loss = sqlite3_column_double(statement, 2)};", unit("coordinator/store")),
    Mutant("bad steps are forgotten at a restart", "coordinator/training.c",
           "    TRY(store_steps_bad(c->store, &c->trainer->bad_steps, &c->trainer->newest_bad_step));\n", "", e2e("records.py")),
    Mutant("a dataset made again may be another one", "coordinator/packing.c",
           "if (!trained_is_other(c)) return 0;", "if (c) return 0;", e2e("records.py")),
    Mutant("the tables of a store are made one by one", "coordinator/store_check.c", "    TRY(execute(db, path, \"BEGIN\"));\n    TRY(make",
           "    return make_tables(db, path);\n    TRY(make", unit("coordinator/store")),
    Mutant("what members differed about is forgotten at a restart", "coordinator/doubts.c",
           "        trainer_doubted(c->trainer, strtoull(at, NULL, 10));", "        (void)strtoull(at, NULL, 10);", e2e("liars.py")),
    Mutant("a checkpoint is not compared with what the members told", "coordinator/transfer.c",
           "    if (memcmp(state.state_digest, c->trainer->state_digest, XXH128_BYTES) != 0) {", "    if (0) {", e2e("liars.py")),
    Mutant("failures of one checkpoint count for the next one", "coordinator/trainer.c",
           "t->save_tries = done ? 0 : t->save_tries + 1;", "t->save_tries += !done;", unit("coordinator/saving")),
    Mutant("a REDUCED of an earlier view counts", "coordinator/trainer.c", " || view != t->view || ", " || ", unit("coordinator/trainer")),
    Mutant("a member that came back is still called unreachable", "coordinator/trainer.c", "        m->barred = false;\n", "",
           unit("coordinator/reach")),
    Mutant("the dataset may become another one after the first step", "coordinator/trained.c",
           "    if (!trained_is_other(c)) return 0;\n    uint64_t", "    if (c) return 0;\n    uint64_t", e2e("lifecycle.py")),
    # ---- workers
    Mutant("a state that was read is not compared with what was announced", "workers/join.c",
           "!m->join_has_digest || memcmp(digest, m->join_digest, sizeof digest) == 0", "true", unit("workers/member")),
    Mutant("the network thread counts as work", "workers/agent.c", "    beat.progress = atomic_load(&worker->progress);\n",
           "    beat.progress = atomic_fetch_add(&worker->progress, 1);\n", unit("workers/agent")),
    Mutant("a cached frame of another shard is taken", "workers/feed.c", "entry->frame == frame && entry->shard == shard && strcmp",
           "entry->frame == frame && strcmp", unit("workers/feed")),
    Mutant("one member is asked for everything at once", "workers/exchange.c", "there >= e->limits.reads_at_peer || ", "",
           unit("workers/exchange")),
    Mutant("sums of an earlier view are shown", "workers/offer.c", "    memset(o->sum, 0, o->segments * sizeof *o->sum);\n", "",
           unit("workers/summing", "workers/member", "workers/exchange")),
    Mutant("a sum that is too short is taken", "workers/summing.c", "message->chunk_bytes == size;", "message->chunk_bytes <= size;",
           unit("workers/summing")),
    Mutant("bad answers of one join count for the next one", "workers/join.c", "m->join_peers = m->join_bad = m->join_next",
           "m->join_peers = m->join_next", unit("workers/member")),
    # ---- cli
    Mutant("a worker that was killed waits as one that fails", "cli/restart.c",
           "bool back_off = own_fault || lived_ms < RESTART_AT_ONCE_MS;", "bool back_off = true;", unit("cli/restart")),
    Mutant("an unknown option is none of our business", "cli/options.c",
           "    return err_set(ERR_USAGE, \"%s: unknown option %s%s see", "    return err_set(ERR_IO, \"%s: unknown option %s%s see",
           e2e("commands.py")),
    Mutant("a coordinator that lives counts as gone", "cli/status_file.c", "if (is_locked(output_dir) && (",
           "if (false && is_locked(output_dir) && (", e2e("status.py")),
    Mutant("the end of another path is replaced in a moved folder", "cli/status_file.c", "at == begin || strchr(around, at[-1])",
           "at == begin || at", e2e("status.py")),
]
