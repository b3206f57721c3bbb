/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/owner.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { RECORDS_SIZE = OWNER_RECORD_COUNT * BLOCK_SIZE, WAIT_POLL_MS = 50 };

struct ownership {
    struct owner_options opt;
    struct dev *dev;
    bool held, was_owned, was_forced;
    bool fenced; /* so it was said of this taking */
    unsigned at; /* which of the two is ours */
    struct owner_record mine;
    uint8_t *known; /* both records as they must be */
    uint8_t *look;  /* both as they are */
    uint8_t *next;  /* one that is being written in the place of the other one, */
    bool writing;   /* which may be there or not */
};

/* ---- what lies there ---------------------------------------------------------------------------
 */

/* Far from what any host gets to, and as far from what a record may say: there is always a next
 * one.
 */
static const uint64_t count_max = INT64_MAX / 2;

/* What the two records say. */
struct found {
    struct owner_record rec;   /* that counts; .epoch 0: none */
    unsigned at;               /* where it lies */
    int r[OWNER_RECORD_COUNT]; /* 0, -ENODATA, -EUCLEAN (or of another image), or -EIO */
    bool met;                  /* two takings: who wrote last may not be who went on */
    bool newer;                /* one is of a version that we do not know */
};

static bool
is_bad(const struct found *f, unsigned i)
{
    return f->r[i] < 0 && f->r[i] != -ENODATA;
}

static bool
any_is_bad(const struct found *f)
{
    return is_bad(f, 0) || is_bad(f, 1);
}

static int
decode_one(struct found *f, unsigned i, const uint8_t *block, const uint8_t *uuid)
{
    struct owner_record rec;
    int r = owner_record_decode(&rec, block);

    f->newer |= r == -EPROTONOSUPPORT;
    if (r < 0)
        return r == -ENODATA ? r : -EUCLEAN;
    if (uuid && memcmp(rec.uuid, uuid, UUID_SIZE) != 0)
        return -EUCLEAN;
    if (rec.sequence > count_max || rec.epoch > count_max)
        return -EUCLEAN;
    if (rec.sequence > f->rec.sequence) {
        f->rec = rec;
        f->at = i;
    }
    return 0;
}

/* Both records of a taking are there before it writes anything else, and all later ones are its
 * own.  So one that is not a taking's first, beside one of another taking, tells of hosts that took
 * the image at the same time. */
static bool
have_met(const struct found *f, const uint8_t *buf)
{
    struct owner_record other;

    return f->rec.epoch != 0 && f->rec.state != OWNER_CLAIMED &&
           owner_record_decode(&other, buf + (size_t)(1 - f->at) * BLOCK_SIZE) == 0 &&
           memcmp(other.nonce, f->rec.nonce, OWNER_NONCE_SIZE) != 0;
}

/* @uuid NULL: of any image.  A record that cannot be read is as bad as one that is damaged. */
static int
find(struct dev *d, uint8_t *buf, const uint8_t *uuid, struct found *f)
{
    *f = (struct found){.at = 1}; /* so that the first record of all goes to the first place */
    for (unsigned i = 0; i < OWNER_RECORD_COUNT; i++) {
        uint8_t *block = buf + (size_t)i * BLOCK_SIZE;
        int r = dev_pread(d, block, BLOCK_SIZE, OWNER_RECORDS + i * BLOCK_SIZE);

        if (r < 0 && r != -EIO)
            return r;
        if (r < 0)
            memset(block, 0, BLOCK_SIZE); /* whatever part was read */
        f->r[i] = r < 0 ? r : decode_one(f, i, block, uuid);
    }
    f->met = have_met(f, buf);
    return 0;
}

int
owner_look(struct dev *d, const uint8_t *uuid, struct owner_record *rec)
{
    AUTO_FREE uint8_t *buf = dev_alloc(RECORDS_SIZE);
    struct found f;
    int r = buf ? find(d, buf, uuid, &f) : -ENOMEM;

    if (r < 0)
        return r;
    *rec = f.rec;
    for (unsigned i = 0; i < OWNER_RECORD_COUNT; i++) {
        if (is_bad(&f, i))
            return f.r[i];
    }
    return f.rec.epoch ? 0 : -ENODATA;
}

const char *
owner_time_text(char buf[OWNER_TIME_TEXT], int64_t t)
{
    time_t when = (time_t)t;
    struct tm tm;

    if (!gmtime_r(&when, &tm) || strftime(buf, OWNER_TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        strcpy(buf, "?");
    return buf;
}

/* ---- one host's hold ---------------------------------------------------------------------------
 */

bool
owner_is_kept(const struct owner_options *opt, const struct dev *d)
{
    return opt && (opt->use == OWNER_ALWAYS || (opt->use == OWNER_IF_SHARED && d->shared));
}

struct ownership *
owner_new(const struct owner_options *opt)
{
    struct ownership *o = calloc(1, sizeof *o);

    if (!o)
        return NULL;
    o->opt = *opt;
    o->known = dev_alloc(RECORDS_SIZE);
    o->look = dev_alloc(RECORDS_SIZE);
    o->next = dev_alloc(BLOCK_SIZE);
    if (o->known && o->look && o->next)
        return o;
    owner_free(o);
    return NULL;
}

void
owner_free(struct ownership *o)
{
    if (!o)
        return;
    free(o->known);
    free(o->look);
    free(o->next);
    free(o);
}

bool
owner_is_held(const struct ownership *o)
{
    return o && o->held;
}

const struct owner_record *
owner_mine(const struct ownership *o)
{
    return &o->mine;
}

bool
owner_was_owned(const struct ownership *o)
{
    return o->was_owned;
}

bool
owner_must_guard(const struct ownership *o, bool before)
{
    return (o->mine.guarded || before) && !o->fenced;
}

void
owner_abandon(struct ownership *o)
{
    if (o)
        o->held = false;
}

static uint8_t *
known_block(const struct ownership *o, unsigned i)
{
    return o->known + (size_t)i * BLOCK_SIZE;
}

/* ---- looking again -----------------------------------------------------------------------------
 */

static bool
is_as_known(const struct ownership *o, unsigned i)
{
    const uint8_t *block = o->look + (size_t)i * BLOCK_SIZE;

    return memcmp(block, known_block(o, i), BLOCK_SIZE) == 0 ||
           (o->writing && i != o->at && memcmp(block, o->next, BLOCK_SIZE) == 0);
}

static int
compare(struct ownership *o, struct dev *d)
{
    int r = d->shared ? 0 : dev_medium(d, true); /* never what a cache has kept */

    if (r == 0)
        r = dev_pread(d, o->look, RECORDS_SIZE, OWNER_RECORDS);
    if (r < 0)
        return r;
    return is_as_known(o, 0) && is_as_known(o, 1) ? 0 : -EBUSY;
}

int
owner_check(struct ownership *o)
{
    return owner_is_held(o) ? compare(o, o->dev) : 0;
}

int
owner_witness(void *arg, struct dev *d)
{
    return compare(arg, d);
}

/* ---- writing a record --------------------------------------------------------------------------
 */

/* Over the one that does not count; on the medium when this returns 0. */
static int
put_record(struct ownership *o, const struct owner_record *rec)
{
    unsigned at = 1 - o->at;
    int r;

    owner_record_encode(rec, o->next);
    o->writing = true;
    r = dev_pwrite(o->dev, o->next, BLOCK_SIZE, OWNER_RECORDS + at * BLOCK_SIZE);
    if (r == 0)
        r = dev_sync(o->dev);
    o->writing = false;
    if (r < 0)
        return r;
    memcpy(known_block(o, at), o->next, BLOCK_SIZE);
    o->at = at;
    o->mine = *rec;
    return 0;
}

/* The same, and it is the only change there.  -EBUSY: it is not (not reported). */
static int
write_record(struct ownership *o, const struct owner_record *rec)
{
    int r = put_record(o, rec);

    return r < 0 ? r : compare(o, o->dev);
}

/* ---- taking ------------------------------------------------------------------------------------
 */

static int
report_owner(const struct dev *d, const struct owner_record *rec, bool met)
{
    char since[OWNER_TIME_TEXT];

    if (met)
        return report(-EBUSY,
                      "%s: several hosts took it at the same time (\"%s\", epoch %" PRIu64
                      ", wrote last); only if certainly no other one can write there any more: "
                      "\"-o takeover\" (other commands: --takeover) takes the image",
                      d->name, rec->host_name, rec->epoch);
    return report(-EBUSY,
                  "%s: in use by host \"%s\" (owner of epoch %" PRIu64
                  " since %s); only if that host is certainly dead, or can no longer write there: "
                  "\"-o takeover\" (other commands: --takeover) takes the image from it",
                  d->name, rec->host_name, rec->epoch, owner_time_text(since, rec->time));
}

static bool
is_other_host(const struct ownership *o, const struct found *f)
{
    return f->met || (f->rec.epoch != 0 && f->rec.state != OWNER_RELEASED &&
                      memcmp(f->rec.host_id, o->opt.host_id, HOST_ID_SIZE) != 0);
}

/* Whether it may be taken, aloud.  The lock of this host has told that no other daemon here has it.
 */
static int
judge(const struct ownership *o, const struct dev *d, const struct found *f, bool anew)
{
    char since[OWNER_TIME_TEXT];

    if (f->newer && !(anew && o->opt.takeover))
        return report(-EPROTONOSUPPORT, "%s: its owner is of a newer version", d->name);
    if (any_is_bad(f) && !anew && !o->opt.takeover)
        return report(-EBUSY,
                      "%s: its owner records are damaged: another host may have it; only if "
                      "certainly none does: \"-o takeover\" (other commands: --takeover) takes it",
                      d->name);
    if (is_other_host(o, f) && !o->opt.takeover)
        return report_owner(d, &f->rec, f->met);
    if (any_is_bad(f) && !anew)
        return report_at(REPORT_WARNING, 0, "%s: taken over though its owner records are damaged",
                         d->name);
    if (is_other_host(o, f))
        return report_at(REPORT_WARNING, 0,
                         "%s: taken over from host \"%s\" (owner of epoch %" PRIu64 " since %s)",
                         d->name, f->rec.host_name, f->rec.epoch,
                         owner_time_text(since, f->rec.time));
    if (f->rec.epoch != 0 && f->rec.state != OWNER_RELEASED)
        return report_at(
            REPORT_NOTICE, 0, "%s: this host had it before%s, and did not let it go", d->name,
            memcmp(f->rec.boot_id, o->opt.boot_id, HOST_ID_SIZE) == 0 ? ""
                                                                      : " it was started anew");
    return 0;
}

static void
pause_ms(unsigned ms)
{
    const struct timespec ts = {.tv_nsec = ms * 1000000L};

    nanosleep(&ts, NULL);
}

/* A host that is letting go may take as long as a daemon needs to end. */
static int
find_free(struct ownership *o, struct dev *d, const uint8_t *uuid, unsigned wait_ms,
          struct found *f)
{
    unsigned waited = 0;
    int r;

    while ((r = find(d, o->known, uuid, f)) == 0 && is_other_host(o, f) && !o->opt.takeover &&
           waited < wait_ms) {
        pause_ms(WAIT_POLL_MS);
        waited += WAIT_POLL_MS;
    }
    return r;
}

int
owner_wait(struct ownership *o, struct dev *d, const uint8_t uuid[UUID_SIZE], unsigned wait_ms)
{
    struct found f;

    return find_free(o, d, uuid, wait_ms, &f);
}

static int
next_claim(const struct ownership *o, const uint8_t uuid[UUID_SIZE], const struct found *f,
           struct owner_record *rec)
{
    /* What a damaged one said may have been the newest. */
    uint64_t step = any_is_bad(f) ? 2 : 1;

    *rec = (struct owner_record){
        .sequence = f->rec.sequence + step,
        .epoch = f->rec.epoch + step,
        .state = OWNER_CLAIMED,
        .guarded = !o->fenced && (o->was_forced || f->rec.guarded),
        .floor = o->fenced ? 0 : f->rec.floor,
        .time = time(NULL),
    };
    memcpy(rec->uuid, uuid, UUID_SIZE);
    memcpy(rec->host_id, o->opt.host_id, HOST_ID_SIZE);
    memcpy(rec->boot_id, o->opt.boot_id, HOST_ID_SIZE);
    memcpy(rec->host_name, o->opt.host_name, sizeof rec->host_name);
    if (getrandom(rec->nonce, sizeof rec->nonce, 0) != (ssize_t)sizeof rec->nonce)
        return report(-EIO, "no random numbers: %s", errno_text(-errno));
    rec->nonce[0] |= 1; /* never zero */
    return 0;
}

/* The one that is not written over by the claim, if it is bad: from now on it is blank. */
static int
blank_bad(struct ownership *o, const struct found *f)
{
    memset(o->next, 0, BLOCK_SIZE);
    if (!is_bad(f, o->at))
        return 0;
    memset(known_block(o, o->at), 0, BLOCK_SIZE);
    return dev_pwrite(o->dev, o->next, BLOCK_SIZE, OWNER_RECORDS + o->at * BLOCK_SIZE);
}

/* A claim alone could be written over by a host that had looked before it was there.  The second
 * record changes what that one has seen, whichever of them comes first. */
static int
write_both(struct ownership *o, struct owner_record rec)
{
    int r = write_record(o, &rec);

    rec.state = OWNER_OWNED;
    rec.sequence++;
    return r < 0 ? r : write_record(o, &rec);
}

int
owner_take(struct ownership *o, struct dev *d, const uint8_t uuid[UUID_SIZE], bool anew)
{
    struct owner_record rec;
    struct found f;
    int r;

    if (bytes_are_zero(o->opt.host_id, HOST_ID_SIZE))
        return report(-EINVAL,
                      "%s: this host has no /etc/machine-id by which it could own an image: give "
                      "it a name of its own, \"-o host_id=NAME\" (other commands: --host-id), or "
                      "do without an owner, \"-o owner_record=off\" (--owner-record)",
                      d->name);
    r = find_free(o, d, anew ? NULL : uuid, o->opt.wait_ms, &f);
    if (r == 0)
        r = judge(o, d, &f, anew);
    if (r < 0)
        return r;
    /* What no image has been made of yet holds no owner's records, but anything. */
    o->was_forced = (any_is_bad(&f) && !anew) || is_other_host(o, &f);
    o->fenced = o->opt.fenced;
    o->was_owned = o->was_forced || (f.rec.epoch != 0 && f.rec.state != OWNER_RELEASED);
    r = next_claim(o, uuid, &f, &rec);
    if (r < 0)
        return r;
    o->dev = d;
    o->at = f.at;
    dev_set_witness(d, owner_witness, NULL, o);
    r = blank_bad(o, &f);
    if (r == 0)
        r = write_both(o, rec);
    if (r < 0)
        dev_set_witness(d, NULL, NULL, NULL);
    if (r == -EBUSY)
        return report(r, "%s: another host is taking it at the same time: try again", d->name);
    o->held = r == 0;
    if (o->held)
        o->opt.takeover = o->opt.fenced = false; /* said of this one */
    if (o->held && o->was_forced && o->mine.guarded)
        report_at(REPORT_NOTICE, 0,
                  "%s: in case that host still writes, each commit takes two flushes; once it "
                  "certainly cannot, a mount with \"-o fenced\" ends that",
                  d->name);
    return r;
}

int
owner_raise_floor(struct ownership *o)
{
    struct owner_record rec = o->mine;

    rec.guarded = true;
    rec.floor = rec.epoch;
    rec.sequence++;
    return owner_is_held(o) ? write_record(o, &rec) : 0;
}

int
owner_may_take(const struct owner_options *opt, struct dev *d)
{
    struct ownership *o;
    struct found f;
    int r;

    if (!owner_is_kept(opt, d))
        return 0;
    o = owner_new(opt);
    r = o ? find_free(o, d, NULL, opt->wait_ms, &f) : -ENOMEM;
    if (r == 0)
        r = judge(o, d, &f, true);
    owner_free(o);
    return r;
}

int
owner_release(struct ownership *o)
{
    struct owner_record rec;
    int r = owner_check(o);

    if (!owner_is_held(o))
        return 0;
    rec = o->mine;
    rec.state = OWNER_RELEASED;
    rec.sequence++;
    rec.time = time(NULL);
    if (r == 0)
        r = put_record(o, &rec); /* what is there after it is others' business */
    o->held = false;
    return r == -EBUSY ? report(r, "%s: another host has taken the image over", o->dev->name) : r;
}
