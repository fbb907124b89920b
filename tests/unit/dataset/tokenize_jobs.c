/* Which parts and jobs sources become. That the parts put together are the whole is shown in ingest.c. */
#include "dataset/ingest/tokenize_jobs.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "tests/unit/random.h"

enum { PLANNED_MAX = 4096 };
struct planned {
    Millrace__TokenizeJob *job[PLANNED_MAX];
    size_t count;
};
static int keep_planned(void *arg, const Millrace__TokenizeJob *job) {
    struct planned *planned = arg;
    struct buf packed = {0};
    assert_true(planned->count < PLANNED_MAX && job->n_parts > 0 && job->n_parts <= JOB_PARTS_MAX && !job->from);
    for (size_t i = 0; i < job->n_parts; i++) assert_int_equal(job->parts[i]->source, i);
    assert_int_equal(buf_reserve(&packed, millrace__tokenize_job__get_packed_size(job)), 0);
    size_t size = millrace__tokenize_job__pack(job, packed.data);
    planned->job[planned->count++] = millrace__tokenize_job__unpack(NULL, size, packed.data);
    buf_free(&packed);
    return 0;
}
static void planned_free(struct planned *planned) {
    for (size_t i = 0; i < planned->count; i++) millrace__tokenize_job__free_unpacked(planned->job[i], NULL);
    planned->count = 0;
}

static const struct source_group some_groups[] = {
    {.format = FORMAT_AUTO}, {.format = FORMAT_LINES}, {.format = FORMAT_TEXT, .separator = (char *)"--"}};
static struct planned planned;
static void plan_one(const struct job_source *source, bool whole) {
    planned_free(&planned);
    assert_int_equal(tokenize_jobs_plan(source, 1, some_groups, whole, keep_planned, &planned), 0);
}

static void the_size_of_a_file_decides_its_parts(void **state) {
    (void)state;
    static const struct {
        uint64_t size, part;
    } known[] = {{0, 1 << 20},         {1 << 20, 1 << 20},    {(1 << 20) + 1, 1 << 20}, {16 << 20, 1 << 20}, {(16 << 20) + 16, 2 << 20},
                 {100 << 20, 7 << 20}, {256 << 20, 16 << 20}, {1000ull << 20, 16 << 20}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct job_source source = {.name = "/a/x.txt", .size = known[i].size, .version = 5, .file = 3, .group = i % 3};
        plan_one(&source, false);
        uint64_t at = 0;
        for (size_t k = 0; k < planned.count; k++) {
            const Millrace__SourcePart *part = planned.job[k]->parts[0];
            assert_int_equal(part->begin, at);
            at = part->end;
            assert_true(at == source.size || at - part->begin == known[i].part);
            assert_true(!part->stream && part->size == source.size && part->version == 5 && part->file == 3 && part->group == i % 3);
        }
        assert_int_equal(at, source.size);
        assert_int_equal(planned.count, known[i].size ? (known[i].size + known[i].part - 1) / known[i].part : 1);
    }
    planned_free(&planned);
}

static void what_cannot_be_divided_is_one_part(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint32_t group;
        bool whole, stream, divided;
    } known[] = {{"/x.txt", 0, false, false, true},      {"/x.txt", 0, true, false, false},  {"/x.txt", 2, true, false, true},
                 {"/x.txt", 1, true, false, true},       {"/x.jsonl", 0, true, false, true}, {"/x.json", 0, false, true, false},
                 {"/x.csv", 0, false, true, false},      {"/x.tsv", 0, false, true, false},  {"/x.txt.gz", 0, false, true, false},
                 {"/x.jsonl.zst", 1, true, true, false}, {"/x.csv", 1, false, false, true}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct job_source source = {.name = known[i].name, .size = 5 << 20, .group = known[i].group};
        plan_one(&source, known[i].whole);
        assert_int_equal(source_is_stream(known[i].name, &some_groups[known[i].group]), known[i].stream);
        assert_int_equal(planned.job[0]->parts[0]->stream, known[i].stream);
        assert_int_equal(planned.count, known[i].divided ? 5 : 1);
    }
    planned_free(&planned);
}

static void archives_are_divided_by_members(void **state) {
    (void)state;
    uint64_t bytes[100], size = 2000;
    for (size_t i = 0; i < 100; i++) bytes[i] = i == 50 ? 40 << 20 : 1 << 20, size += bytes[i];
    struct job_source source = {.name = "/x.zip", .size = size, .member_bytes = bytes, .members = 100};
    plan_one(&source, true);
    static const uint64_t members[] = {16, 16, 16, 3, 16, 16, 16, 1};
    assert_int_equal(planned.count, 8);
    uint64_t first = 0, at = 0;
    for (size_t i = 0; i < planned.count; i++) {
        const Millrace__SourcePart *part = planned.job[i]->parts[0];
        assert_true(part->stream && part->first_member == first && part->members == members[i] && part->begin == at);
        first += part->members, at = part->end;
    }
    assert_int_equal(at, size);
    planned_free(&planned);
}

/* Which jobs there are, as one digest each. */
static size_t job_digests(uint8_t (*out)[XXH128_BYTES]) {
    for (size_t i = 0; i < planned.count; i++) {
        struct buf names = {0};
        for (size_t k = 0; k < planned.job[i]->n_parts; k++) buf_print(&names, "%s\n", planned.job[i]->parts[k]->name);
        xxh128_of(out[i], names.data, names.size);
        buf_free(&names);
    }
    return planned.count;
}

static void a_small_file_that_goes_changes_its_neighbourhood_alone(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    enum { FILES = 3000 };
    static struct job_source source[FILES];
    static uint8_t before[PLANNED_MAX][XXH128_BYTES], after[PLANNED_MAX][XXH128_BYTES];
    for (size_t i = 0; i < FILES; i++) {
        source[i] = (struct job_source){.name = mem_format("/a/%llu.txt", (unsigned long long)random_next(&random) % 100000)};
        source[i].size = random_in(&random, 0, 9) ? random_in(&random, 0, 30000) : random_in(&random, 0, 1 << 20);
    }
    assert_int_equal(tokenize_jobs_plan(source, FILES, some_groups, false, keep_planned, &planned), 0);
    size_t jobs = job_digests(before), parts = 0;
    for (size_t i = 0; i < jobs; i++) {
        uint64_t bytes = 0;
        for (size_t k = 0; k < planned.job[i]->n_parts; k++) bytes += planned.job[i]->parts[k]->size;
        assert_true(bytes <= 1 << 20);
        parts += planned.job[i]->n_parts;
    }
    assert_int_equal(parts, FILES);
    assert_true(jobs > FILES / 24 && jobs < FILES / 4);
    for (int round = 0; round < 20; round++) {
        size_t gone = (size_t)random_in(&random, 0, FILES - 1), first = 0, last = 0;
        struct job_source kept = source[gone];
        memmove(source + gone, source + gone + 1, (FILES - 1 - gone) * sizeof *source);
        planned_free(&planned);
        assert_int_equal(tokenize_jobs_plan(source, FILES - 1, some_groups, false, keep_planned, &planned), 0);
        size_t now = job_digests(after);
        size_t least = jobs < now ? jobs : now;
        while (first < least && memcmp(before[first], after[first], XXH128_BYTES) == 0) first++;
        while (first + last < least && memcmp(before[jobs - 1 - last], after[now - 1 - last], XXH128_BYTES) == 0) last++;
        if (now - first - last > 30) fail_msg("MILLRACE_SEED=%llu: %zu jobs changed", (unsigned long long)random.seed, now - first - last);
        memmove(source + gone + 1, source + gone, (FILES - 1 - gone) * sizeof *source);
        source[gone] = kept;
    }
    planned_free(&planned);
    for (size_t i = 0; i < FILES; i++) free((char *)source[i].name);
}

static void no_job_has_more_parts_than_the_limit_and_a_refusal_ends_the_plan(void **state) {
    (void)state;
    static struct job_source source[5000];
    for (size_t i = 0; i < 5000; i++) source[i] = (struct job_source){.name = "/a/b"}; /* no one of them ends a batch, or each does */
    assert_int_equal(tokenize_jobs_plan(source, 5000, some_groups, false, keep_planned, &planned), 0);
    size_t parts = 0;
    for (size_t i = 0; i < planned.count; i++) parts += planned.job[i]->n_parts;
    assert_int_equal(parts, 5000);
    planned_free(&planned);
    assert_int_equal(tokenize_jobs_plan(NULL, 0, some_groups, false, keep_planned, &planned), 0);
    assert_int_equal(planned.count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_size_of_a_file_decides_its_parts),
        cmocka_unit_test(what_cannot_be_divided_is_one_part),
        cmocka_unit_test(archives_are_divided_by_members),
        cmocka_unit_test(a_small_file_that_goes_changes_its_neighbourhood_alone),
        cmocka_unit_test(no_job_has_more_parts_than_the_limit_and_a_refusal_ends_the_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
