/* What is done to a run. */
#ifndef MILLRACE_TESTS_SIM_DISTURBANCES_H
#define MILLRACE_TESTS_SIM_DISTURBANCES_H

#include "coordinator/coordinator.h"
#include "tests/sim/judge.h"

static int some_worker(struct sim *s, bool alive) {
    int slot = (int)draw_in(s, 0, SLOTS - 1);
    for (int i = 0; i < SLOTS; i++, slot = (slot + 1) % SLOTS)
        if (s->process[slot].alive == alive) return slot;
    return -1;
}

static size_t count_alive(const struct sim *s) {
    size_t n = 0;
    for (int i = 0; i < SLOTS; i++) n += s->process[i].alive;
    return n;
}

/* Bad memory shows while the coordinator hears from all members: two faults at once can hide each other. */
static bool suspects(const struct sim *s) {
    for (int i = 0; i < SLOTS; i++)
        if (s->process[i].alive && (s->process[i].bad || s->process[i].spoil)) return true;
    return false;
}

static void spoil_state(struct sim *s) {
    size_t ready = 0;
    const struct context *c = s->c;
    const struct trainer *t = c ? c->trainer : NULL;
    if (!s->plan.bad_states || !t || c->ended || s->crash_in || c->stopping || t->phase != TRAINER_RUN) return;
    if (t->committed + 1 >= s->plan.options.max_steps || is_skipped(s, t->committed + 1)) return;
    for (size_t i = 0; i < t->doubts; i++) /* to differ about the same step again ends a run */
        if (t->doubted[i] == t->committed + 1) return;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (m->state == MEMBER_ABSENT) continue;
        const struct process *w = process_of(s, m->worker);
        if (!w || w->stops || c->worker[m->worker].odd) return; /* who is left alone, as who differs often is, has nobody to differ with */
        const struct link_peer *peer = peer_find(link_at(COORDINATOR_ADDRESS), c->worker[m->worker].peer);
        if (!peer || peer->connection != line_between(s, COORDINATOR, w->place)->connection) return;
        ready += m->state == MEMBER_READY;
    }
    for (int i = 0; i < PLACES; i++)
        for (int k = i + 1; k < PLACES; k++)
            if (s->line[i][k].down_until_ms > s->now_ms) return;
    for (int i = 0; i < PLACES; i++)
        if (s->process[i].still_until_ms && s->now_ms < s->process[i].still_until_ms + SILENT_MS) return;
    int slot = some_worker(s, true);
    if (slot < 0 || ready < 2) return;
    for (uint32_t i = 0; i < c->workers; i++)
        if (process_of(s, i) == &s->process[slot] && trainer_holds_state(t, i)) {
            trace(s, "worker %d will spoil its next state", slot);
            s->process[slot].spoil = true;
        }
}

/* Soon, between two of the things that it does. */
static void crash_coordinator(struct sim *s) {
    if (!s->process[COORDINATOR].alive || s->crash_in) return;
    s->crash_in = (int)draw_in(s, 1, chance(s, 50) ? 12 : 100);
    s->crash_is_power = chance(s, 40);
}

static void trouble_disk(struct sim *s) {
    if (!s->plan.disks) return;
    if (chance(s, 50)) {
        s->disk->full_until_ms = s->now_ms + draw_in(s, 10, chance(s, 70) ? 1000 : 20000);
        trace(s, "the disk is full until %lld", (long long)s->disk->full_until_ms);
    } else s->disk->failures = (int)draw_in(s, 1, 3);
}

/* A bit of a shard that is there: whoever reads it finds that out, and it is made again. */
static void damage_shard(struct sim *s) {
    char *folder = mem_format("%s/out/dataset", s->folder), *name = NULL;
    DIR *dir = s->plan.damages && s->c && s->c->trainer ? opendir(folder) : NULL;
    uint64_t best = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) { /* in whatever order they come */
        uint64_t value = s->drawn;
        for (const char *at = entry->d_name; *at; at++) value = mix(value, (uint8_t)*at);
        if (!strstr(entry->d_name, ".tok.zst") || strstr(entry->d_name, ".draft") || value < best) continue;
        best = value;
        free(name);
        name = mem_format("%s/%s", folder, entry->d_name);
    }
    if (dir) closedir(dir);
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    struct stat st;
    uint8_t byte;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0) {
        off_t at = (off_t)draw_in(s, 0, st.st_size - 1);
        CHECK(pread(fd, &byte, 1, at) == 1);
        byte ^= 1;
        CHECK(file_write_at(fd, &byte, 1, (uint64_t)at) == 0);
        s->faults[FAULT_DAMAGED]++;
        trace(s, "byte %lld of %s is damaged", (long long)at, strrchr(name, '/') + 1);
    }
    if (fd >= 0) close(fd);
    free(name);
    free(folder);
}

static void ask_to_save(struct sim *s) {
    s->faults[FAULT_SAVE_ASKED]++;
    trace(s, "save is asked for");
    coordinator_save();
}

static void ask_to_stop(struct sim *s) {
    s->faults[FAULT_STOP]++;
    s->stop_asked = true;
    trace(s, "stop is asked for");
    coordinator_stop();
}

static void crash_worker(struct sim *s, int slot) {
    trace(s, "worker %d crashes", slot);
    s->faults[FAULT_CRASH]++;
    process_kill(&s->process[slot]);
    line_break(s, COORDINATOR, slot, 0);
    if (chance(s, 80)) after(s, draw_in(s, 50, 3000), EVENT_SPAWN, slot);
}

/* What came meanwhile it finds when it goes on. */
static void stand_still(struct sim *s, int place) {
    static const int64_t pauses_ms[] = {30, 300, 2000, 4000, 8000};
    int64_t ms = draw_in(s, 1, pauses_ms[draw_in(s, 0, 4)]);
    if (s->process[place].still_until_ms > s->now_ms) return;
    trace(s, "%s stands still for %lld ms", place_name(place), (long long)ms);
    s->faults[FAULT_PAUSE]++;
    s->process[place].still_until_ms = s->now_ms + ms;
}

static void break_line(struct sim *s, int slot) {
    static const int64_t breaks_ms[] = {0, 100, 1000, 5000};
    int other = chance(s, 70) ? COORDINATOR : (int)draw_in(s, 0, SLOTS - 1);
    int64_t ms = draw_in(s, 0, breaks_ms[draw_in(s, 0, 3)]);
    if (other == slot) return;
    trace(s, "connection %d - %d breaks for %lld ms", slot, other, (long long)ms);
    s->faults[FAULT_BREAK]++;
    line_break(s, slot, other, ms);
}

static void split_network(struct sim *s) {
    uint64_t side = draw(s);
    int64_t ms = draw_in(s, 500, 12000);
    trace(s, "the network is split for %lld ms, sides %llx", (long long)ms, (unsigned long long)(side % (1 << PLACES)));
    s->faults[FAULT_PARTITION]++;
    for (int i = 0; i < PLACES; i++)
        for (int k = i + 1; k < PLACES; k++)
            if ((side >> i & 1) != (side >> k & 1)) line_break(s, i, k, ms);
}

static void ask_to_leave(struct sim *s, int slot) {
    struct process *p = &s->process[slot];
    if (p->stops) return;
    trace(s, "worker %d is asked to leave", slot);
    s->faults[FAULT_LEAVE]++;
    p->stops = s->defect == DEFECT_HASTY ? 2 : 1;
}

static void jump_clock(struct sim *s) {
    int place = (int)draw_in(s, 0, PLACES - 1);
    int64_t ms = draw_in(s, 100, 20000);
    if (!s->plan.clocks) return;
    trace(s, "the clock of %s jumps by %lld ms", place_name(place), (long long)ms);
    s->faults[FAULT_CLOCK]++;
    s->process[place].clock_ms += ms;
    s->process[place].wall_ms += draw_in(s, -100000000, 100000000); /* as somebody sets it */
}

static void disturb(struct sim *s) {
    int slot = some_worker(s, true);
    int kind = (int)draw_in(s, s->plan.gentle ? 14 : 0, s->plan.bad_states ? 24 : 17);
    if (s->plan.gentle && chance(s, 20)) kind = 3;
    if (suspects(s) && kind != 3) return; /* one thing after the other; joiners may come */
    switch (kind) {
    case 0:
    case 1:
        if (slot >= 0) crash_worker(s, slot);
        break;
    case 2:
        for (int i = 0; i < SLOTS && chance(s, 30); i++)
            if (s->process[i].alive) crash_worker(s, i);
        break;
    case 3:
        slot = some_worker(s, false);
        if (slot >= 0) after(s, 0, EVENT_SPAWN, slot);
        break;
    case 4:
    case 5: stand_still(s, slot >= 0 && chance(s, 90) ? slot : COORDINATOR); break;
    case 6:
    case 7:
        if (slot >= 0) break_line(s, slot);
        break;
    case 8:
    case 9: crash_coordinator(s); break;
    case 10: trouble_disk(s); break;
    case 11: jump_clock(s); break;
    case 12:
        if (chance(s, 50)) split_network(s);
        break;
    case 13: damage_shard(s); break;
    case 14:
        if (s->plan.stops && s->c && !s->c->ended && !s->c->stopping && !s->stop_asked) ask_to_stop(s);
        break;
    case 15:
        if (s->plan.leaves && slot >= 0) ask_to_leave(s, slot);
        break;
    case 16:
        for (int i = 0; i < SLOTS && s->plan.leaves; i++)
            if (s->process[i].alive && chance(s, 90)) ask_to_leave(s, i);
        break;
    case 17:
        if (s->plan.leaves && s->c && !s->c->ended) ask_to_save(s);
        break;
    default: spoil_state(s);
    }
}

#endif
