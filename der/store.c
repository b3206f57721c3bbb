/* SPDX-License-Identifier: BSD-3-Clause */
#include "der/store.h"
#include "base/bytes.h"
#include "base/crc32.h"
#include "base/report.h"
#include "base/scope.h"
#include "base/utf8.h"
#include "der/node.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TIME_LEN = 15, FIELD_NAME = 48, STREAM_MAX = 1 << 30 };
static const char kind[] = "vnvram store";

/* What an entry's MAC covers: its place in the stream, its name and length, IV and data. */
struct cover {
    uint8_t place[4], length[8];
    struct iovec iov[5];
};

enum { COVER_PARTS = sizeof((struct cover){0}.iov) / sizeof(struct iovec) };

static void
cover_entry(struct cover *c, uint32_t index, const struct der_entry *e, const uint8_t *iv,
            const struct span *data)
{
    store_be32(c->place, index);
    store_be32(c->length, (uint32_t)((uint64_t)e->len >> 32));
    store_be32(c->length + 4, (uint32_t)e->len);
    c->iov[0] = (struct iovec){c->place, sizeof c->place};
    c->iov[1] = (struct iovec){(void *)(uintptr_t)e->name, strlen(e->name) + 1};
    c->iov[2] = (struct iovec){c->length, sizeof c->length};
    c->iov[3] = (struct iovec){(void *)(uintptr_t)iv, SEAL_IV_SIZE};
    c->iov[4] = (struct iovec){(void *)(uintptr_t)data->p, data->n};
}

/* Of a sealer's operation; it has not said what was wrong. */
static int
tell(int r)
{
    return r < 0 && r != -EUCLEAN && r != -EBADMSG
               ? report(r, "the sealing failed: %s", errno_text(r))
               : r;
}

static int
body_tag(struct sealer *s, const struct span *body, uint8_t tag[SEAL_TAG_SIZE])
{
    const struct iovec iov = {(void *)(uintptr_t)body->p, body->n};

    return tell(s->ops->tag(s, SEAL_DIRECTORY, &iov, 1, tag));
}

void
der_sealing(const struct der_head *head, struct superblock *sb)
{
    *sb = (struct superblock){
        .seal_mode = head->sealed ? SEAL_AES_CBC_HMAC_SHA256 : SEAL_NONE,
        .key_size = head->key_size,
        .key_epoch = 1,
    };
    memcpy(sb->uuid, head->stream, UUID_SIZE);
    memcpy(sb->keyslots, head->keyslots, sizeof sb->keyslots);
}

static bool
is_text(const char *name)
{
    for (const unsigned char *p = (const unsigned char *)name; *p;) {
        size_t n = utf8_length(p);

        if (n == 0)
            return false;
        p += n;
    }
    return true;
}

/* "attributes.modified.seconds" */
static const char *
field(char buf[FIELD_NAME], const char *of, const char *name)
{
    snprintf(buf, FIELD_NAME, "%.22s.%.22s", of, name);
    return buf;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void
put_attr(asn1_node node, const char *of, const struct file_attr *a, int *r)
{
    const struct {
        const char *seconds, *nanoseconds;
        const struct timespec *t;
    } times[] = {{"accessed.seconds", "accessed.nanoseconds", &a->atime},
                 {"modified.seconds", "modified.nanoseconds", &a->mtime},
                 {"changed.seconds", "changed.nanoseconds", &a->ctime}};
    char buf[FIELD_NAME];

    node_put_number(node, field(buf, of, "mode"), a->mode, r);
    node_put_number(node, field(buf, of, "uid"), a->uid, r);
    node_put_number(node, field(buf, of, "gid"), a->gid, r);
    for (int i = 0; i < 3; i++) {
        node_put_number(node, field(buf, of, times[i].seconds), times[i].t->tv_sec, r);
        node_put_number(node, field(buf, of, times[i].nanoseconds), times[i].t->tv_nsec, r);
    }
}

static void
put_time(asn1_node node, const char *name, int64_t seconds, int *r)
{
    const time_t t = (time_t)seconds;
    char text[TIME_LEN + 1] = "19700101000000Z";
    struct tm tm;

    if (gmtime_r(&t, &tm) && tm.tm_year >= -1900 && tm.tm_year <= 9999 - 1900)
        strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &tm);
    node_put_bytes(node, name, text, TIME_LEN, r);
}

static void
put_sealing(asn1_node node, const struct der_head *h, int *r)
{
    node_put_bytes(node, "sealing.stream", h->stream, UUID_SIZE, r);
    node_put_number(node, "sealing.keySize", h->key_size, r);
    for (int i = 0; i < KEYSLOT_COUNT; i++) {
        if (bytes_are_zero(h->keyslots[i], KEYSLOT_SIZE))
            continue;
        node_choose(node, "sealing.keySlots", "NEW", r);
        node_put_bytes(node, "sealing.keySlots.?LAST", h->keyslots[i], KEYSLOT_SIZE, r);
    }
}

static int
write_head(struct vault *out, size_t *used, const struct der_head *h)
{
    AUTO(node_freep) asn1_node node = NULL;
    int r = node_new(&node, "Header");

    if (r < 0)
        return r;
    node_put_bytes(node, "kind", kind, strlen(kind), &r);
    node_put_number(node, "version", DER_VERSION, &r);
    node_put_bytes(node, "uuid", h->uuid, UUID_SIZE, &r);
    node_put_number(node, "generation", (int64_t)h->generation, &r);
    put_time(node, "committed", h->committed, &r);
    put_attr(node, "root", &h->root, &r);
    if (h->sealed)
        put_sealing(node, h, &r);
    else
        node_leave_out(node, "sealing", &r);
    return r < 0 ? r : node_encode(node, out, used);
}

/* Fills in content and checksum.  @data is what will stand there. */
static void
put_content(asn1_node node, const struct span *data, const uint8_t *iv, const uint8_t *tag, int *r)
{
    node_choose(node, "content", iv ? "sealed" : "plain", r);
    if (iv) {
        node_put_bytes(node, "content.sealed.iv", iv, SEAL_IV_SIZE, r);
        node_put_bytes(node, "content.sealed.mac", tag, SEAL_TAG_SIZE, r);
    }
    node_put_bytes(node, iv ? "content.sealed.data" : "content.plain", data->p, data->n, r);
    node_put_number(node, "crc32", crc32_of(data->p, data->n), r);
}

static int
seal_content(asn1_node node, uint32_t index, const struct der_entry *e, struct sealer *s)
{
    AUTO(vault_freep) struct vault *v = NULL;
    uint8_t iv[SEAL_IV_SIZE], tag[SEAL_TAG_SIZE];
    struct cover c;
    struct span data = {.n = (e->len + SEAL_BLOCK - 1) / SEAL_BLOCK * SEAL_BLOCK};
    int r = vault_new(&v, data.n, false);

    if (r < 0)
        return r;
    data.p = v->bytes;
    r = tell(s->ops->new_iv(s, iv));
    if (r == 0 && data.n)
        r = tell(s->ops->encrypt(s, iv, v->bytes, data.n, e->data, e->len));
    cover_entry(&c, index, e, iv, &data);
    if (r == 0)
        r = tell(s->ops->tag(s, SEAL_BANK, c.iov, COVER_PARTS, tag));
    if (r == 0)
        put_content(node, &data, iv, tag, &r);
    return r;
}

static int
write_entry(struct vault *out, size_t *used, uint32_t index, const struct der_entry *e,
            struct sealer *s)
{
    AUTO(node_freep) asn1_node node = NULL;
    const struct span plain = {e->data, e->len};
    const char *how = is_text(e->name) ? "text" : "bytes";
    char buf[FIELD_NAME];
    int r = node_new(&node, "Entry");

    if (r < 0)
        return r;
    node_choose(node, "name", how, &r);
    node_put_bytes(node, field(buf, "name", how), e->name, strlen(e->name), &r);
    node_put_number(node, "capacity", (int64_t)e->capacity, &r);
    node_put_number(node, "length", (int64_t)e->len, &r);
    node_put_number(node, "generation", (int64_t)e->generation, &r);
    put_attr(node, "attributes", &e->attr, &r);
    if (s->ops->mode == SEAL_NONE)
        put_content(node, &plain, NULL, NULL, &r);
    else if (r == 0)
        r = seal_content(node, index, e, s);
    return r < 0 ? r : node_encode(node, out, used);
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct der_entry *)a)->name, ((const struct der_entry *)b)->name);
}

static int
write_body(struct vault *out, size_t *used, const struct der_head *head,
           const struct der_entry *entries, size_t n, struct sealer *s)
{
    int r = write_head(out, used, head);
    size_t before = *used;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = write_entry(out, used, (uint32_t)i, &entries[i], s);
    if (r == 0)
        r = der_wrap(out, used, *used - before, DER_SEQUENCE);
    return r < 0 ? r : der_wrap(out, used, *used, DER_SEQUENCE);
}

/* The sum and the tag behind the body. */
static int
write_sums(struct vault *out, size_t *used, struct sealer *s)
{
    const struct span body = {out->bytes, *used};
    uint8_t crc[5] = {0}, tag[SEAL_TAG_SIZE];
    size_t skip = 0;
    int r = body_tag(s, &body, tag);

    if (r < 0)
        return r;
    store_be32(crc + 1, crc32_of(body.p, body.n));
    while (skip < 4 && crc[skip] == 0 && !(crc[skip + 1] & 0x80)) /* the shortest form */
        skip++;
    r = vault_grow(out, *used + 2 + sizeof crc + 2 + SEAL_TAG_SIZE);
    if (r < 0)
        return r;
    memcpy(out->bytes + *used, crc + skip, sizeof crc - skip);
    *used += sizeof crc - skip;
    r = der_wrap(out, used, sizeof crc - skip, DER_INTEGER);
    if (r < 0)
        return r;
    memcpy(out->bytes + *used, tag, SEAL_TAG_SIZE);
    *used += SEAL_TAG_SIZE;
    return der_wrap(out, used, SEAL_TAG_SIZE, DER_OCTETS);
}

int
der_write(struct vault **out, const struct der_head *head, struct der_entry *entries, size_t n,
          struct sealer *s)
{
    AUTO(vault_freep) struct vault *v = NULL;
    uint64_t size = 0;
    size_t used = 0;
    int r;

    for (size_t i = 0; i < n; i++)
        size += entries[i].len;
    if (size > STREAM_MAX / 2)
        return report(-EFBIG, "%" PRIu64 " bytes are too many for one stream", size);
    qsort(entries, n, sizeof *entries, by_name);
    r = vault_new(&v, size + 4096, false);
    if (r == 0)
        r = write_body(v, &used, head, entries, n, s);
    if (r == 0)
        r = write_sums(v, &used, s);
    if (r == 0)
        r = der_wrap(v, &used, used, DER_SEQUENCE);
    if (r < 0)
        return r;
    v->len = used;
    *out = steal(&v);
    return 0;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* Where the parts of a stream lie. */
struct parts {
    struct span body, header, entries; /* entries: what is in the sequence */
    int64_t crc;
    uint8_t tag[SEAL_TAG_SIZE];
};

static int
damaged(const char *source, const char *what)
{
    return report(-EUCLEAN, "%s: %s", source, what);
}

/* Whether the first thing in it is our kind, whatever the lengths in front of it say. */
static bool
is_ours(const uint8_t *buf, size_t len)
{
    size_t at = 0;

    for (int level = 0; level < 3; level++) {
        if (len - at < 2 || buf[at] != DER_SEQUENCE)
            return false;
        at += 2 + (buf[at + 1] & 0x80 ? buf[at + 1] & 0x7f : 0);
        if (at > len)
            return false;
    }
    return len - at >= 2 + strlen(kind) && buf[at] == DER_UTF8 && buf[at + 1] == strlen(kind) &&
           memcmp(buf + at + 2, kind, strlen(kind)) == 0;
}

static int
cut_sums(struct parts *p, struct span *rest)
{
    struct span whole, crc, tag;
    int r = der_cut(rest, DER_INTEGER, &whole, &crc);

    if (r == 0)
        r = der_cut(rest, DER_OCTETS, &whole, &tag);
    if (r < 0)
        return r;
    if (rest->n || crc.n < 1 || crc.n > 5 || tag.n != SEAL_TAG_SIZE ||
        (crc.n > 1 && crc.p[0] == 0 && !(crc.p[1] & 0x80)) || crc.p[0] & 0x80)
        return -EUCLEAN;
    p->crc = 0;
    for (size_t i = 0; i < crc.n; i++)
        p->crc = p->crc << 8 | crc.p[i];
    memcpy(p->tag, tag.p, SEAL_TAG_SIZE);
    return 0;
}

static int
cut_body(struct parts *p)
{
    struct span body = p->body, inside, whole, rest;
    int r = der_cut(&body, DER_SEQUENCE, &whole, &inside);

    if (r == 0)
        r = der_cut(&inside, DER_SEQUENCE, &p->header, &rest);
    if (r == 0)
        r = der_cut(&inside, DER_SEQUENCE, &whole, &p->entries);
    return r < 0 || inside.n == 0 ? r : -EUCLEAN;
}

static int
cut_stream(struct parts *p, const uint8_t *buf, size_t len, const char *source)
{
    struct span all = {buf, len}, whole, inside, body;
    int r;

    if (!is_ours(buf, len))
        return report(-EMEDIUMTYPE, "%s: is no store of vnvram's in DER", source);
    if (len > STREAM_MAX)
        return report(-EFBIG, "%s: is too large for a store", source);
    r = der_cut(&all, DER_SEQUENCE, &whole, &inside);
    if (r == -ERANGE)
        return report(r, "%s: is cut off: it has %zu bytes, and goes on behind them", source, len);
    if (r < 0 || all.n > 0)
        return damaged(source, r < 0 ? "its length is not DER" : "it goes on after its end");
    if (der_cut(&inside, DER_SEQUENCE, &p->body, &body) < 0 || cut_sums(p, &inside) < 0 ||
        p->crc != crc32_of(p->body.p, p->body.n))
        return damaged(source, "its checksum is wrong");
    return cut_body(p) < 0 ? damaged(source, "its parts are not DER") : 0;
}

static bool
get_timespec(asn1_node node, const char *of, const char *name, struct timespec *t)
{
    char buf[FIELD_NAME], part[FIELD_NAME];
    int64_t seconds, nanoseconds;

    field(part, of, name);
    if (!node_get_number(node, field(buf, part, "seconds"), &seconds) ||
        !node_get_number(node, field(buf, part, "nanoseconds"), &nanoseconds) || nanoseconds < 0 ||
        nanoseconds > 999999999)
        return false;
    *t = (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)nanoseconds};
    return true;
}

static bool
get_u32(asn1_node node, const char *name, uint32_t *value)
{
    int64_t v;

    if (!node_get_number(node, name, &v) || v < 0 || v > UINT32_MAX)
        return false;
    *value = (uint32_t)v;
    return true;
}

static bool
get_attr(asn1_node node, const char *of, struct file_attr *a)
{
    char buf[FIELD_NAME];

    return get_u32(node, field(buf, of, "mode"), &a->mode) &&
           get_u32(node, field(buf, of, "uid"), &a->uid) &&
           get_u32(node, field(buf, of, "gid"), &a->gid) &&
           get_timespec(node, of, "accessed", &a->atime) &&
           get_timespec(node, of, "modified", &a->mtime) &&
           get_timespec(node, of, "changed", &a->ctime) && file_attr_ok(a);
}

/* "20261130094500Z" */
static bool
get_time(asn1_node node, const char *name, int64_t *seconds)
{
    char text[TIME_LEN + 1] = "", again[TIME_LEN + 1] = "";
    struct tm tm = {0};
    size_t n;
    time_t t;

    if (!node_get_some(node, name, text, sizeof text, &n) || strlen(text) != TIME_LEN ||
        sscanf(text, "%4d%2d%2d%2d%2d%2dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec) != 6)
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    t = timegm(&tm);
    if (!gmtime_r(&t, &tm) || strftime(again, sizeof again, "%Y%m%d%H%M%SZ", &tm) == 0)
        return false;
    *seconds = t;
    return strcmp(text, again) == 0; /* so there is such a day, and such an hour */
}

static bool
get_sealing(asn1_node node, struct der_head *h)
{
    char name[FIELD_NAME];
    int n = 0;
    int64_t size;

    h->sealed = asn1_find_node(node, "sealing") != NULL;
    if (!h->sealed)
        return true;
    if (asn1_number_of_elements(node, "sealing.keySlots", &n) != ASN1_SUCCESS || n < 1 ||
        n > KEYSLOT_COUNT || !node_get_bytes(node, "sealing.stream", h->stream, UUID_SIZE) ||
        !node_get_number(node, "sealing.keySize", &size) ||
        (size != 16 && size != 24 && size != 32))
        return false;
    h->key_size = (uint8_t)size;
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "sealing.keySlots.?%d", i + 1);
        if (!node_get_bytes(node, name, h->keyslots[i], KEYSLOT_SIZE) ||
            bytes_are_zero(h->keyslots[i], KEYSLOT_SIZE))
            return false;
    }
    return true;
}

/* A newer version may have other fields behind its number. */
static bool
is_newer(const struct parts *p)
{
    struct span header = p->header, in, whole, version;

    return der_cut(&header, DER_SEQUENCE, &whole, &in) == 0 &&
           der_cut(&in, DER_UTF8, &whole, &version) == 0 &&
           der_cut(&in, DER_INTEGER, &whole, &version) == 0 &&
           (version.n > 1 || (version.n == 1 && version.p[0] > DER_VERSION && version.p[0] < 128));
}

static int
read_head(struct der_head *h, const struct parts *p, const char *source)
{
    AUTO(node_freep) asn1_node node = NULL;
    int64_t version, generation;
    int r;

    if (is_newer(p))
        return report(-EPROTONOSUPPORT, "%s: is of a version that is newer than this program",
                      source);
    r = node_decode(&node, "Header", &p->header);
    if (r == -ENOMEM)
        return r;
    if (r < 0 || !node_get_number(node, "version", &version) || version != DER_VERSION ||
        !node_get_bytes(node, "uuid", h->uuid, UUID_SIZE) ||
        !node_get_number(node, "generation", &generation) || generation < 1 ||
        !get_time(node, "committed", &h->committed) || !get_attr(node, "root", &h->root) ||
        !get_sealing(node, h))
        return damaged(source, "its header is not as it must be");
    h->generation = (uint64_t)generation;
    return 0;
}

int
der_read_head(struct der_head *head, const uint8_t *buf, size_t len, const char *source)
{
    struct der_head h = {0};
    struct parts p;
    int r = cut_stream(&p, buf, len, source);

    if (r == 0)
        r = read_head(&h, &p, source);
    if (r == 0)
        *head = h;
    return r;
}

/* ---- entries ---- */

static bool
get_name(asn1_node node, char name[NAME_MAX_LEN + 1])
{
    const bool text = node_chose(node, "name", "text");
    size_t n;

    /* libtasn1 gives no closing zero for either. */
    if (!node_get_some(node, text ? "name.text" : "name.bytes", name, NAME_MAX_LEN, &n))
        return false;
    name[n] = '\0';
    return strlen(name) == n && entry_name_ok(name, n) && is_text(name) == text;
}

static bool
get_length(asn1_node node, const char *name, uint64_t max, uint64_t *value)
{
    int64_t v;

    if (!node_get_number(node, name, &v) || v < 0 || (uint64_t)v > max)
        return false;
    *value = (uint64_t)v;
    return true;
}

static bool
get_entry(asn1_node node, struct der_entry *e)
{
    uint64_t len;

    if (!get_name(node, e->name) || !get_length(node, "capacity", MAX_CAPACITY, &e->capacity) ||
        !get_length(node, "length", e->capacity, &len) ||
        !get_length(node, "generation", INT64_MAX, &e->generation) ||
        !get_attr(node, "attributes", &e->attr))
        return false;
    e->len = (size_t)len;
    return len == 0 || e->generation != 0; /* what no bank holds is empty */
}

/* Verifies the MAC, then decrypts in place; what follows the content must be zero. */
static int
unseal(asn1_node node, uint32_t index, const struct der_entry *e, struct sealer *s, struct vault *v)
{
    const struct span data = {v->bytes, v->len};
    uint8_t iv[SEAL_IV_SIZE], tag[SEAL_TAG_SIZE];
    struct cover c;
    int r;

    if (!node_get_bytes(node, "content.sealed.iv", iv, sizeof iv) ||
        !node_get_bytes(node, "content.sealed.mac", tag, sizeof tag) || v->len % SEAL_BLOCK)
        return -EUCLEAN;
    cover_entry(&c, index, e, iv, &data);
    r = tell(sealer_verify(s, SEAL_BANK, c.iov, COVER_PARTS, tag));
    if (r < 0)
        return r;
    r = v->len ? tell(s->ops->decrypt(s, iv, v->bytes, v->len)) : 0;
    if (r == 0 && (v->len < e->len || v->len - e->len >= SEAL_BLOCK ||
                   !bytes_are_zero(v->bytes + e->len, v->len - e->len)))
        r = -EUCLEAN;
    v->len = e->len;
    return r;
}

static int
get_content(asn1_node node, uint32_t index, struct der_entry *e, struct sealer *s,
            struct vault **content)
{
    const bool sealed = s->ops->mode != SEAL_NONE;
    AUTO(vault_freep) struct vault *v = NULL;
    uint32_t crc;
    int r;

    if (!node_chose(node, "content", sealed ? "sealed" : "plain") || !get_u32(node, "crc32", &crc))
        return -EUCLEAN;
    r = node_get_vault(node, sealed ? "content.sealed.data" : "content.plain", &v);
    if (r < 0)
        return r;
    if (crc != crc32_of(v->bytes, v->len))
        return -EUCLEAN;
    if (sealed)
        r = unseal(node, index, e, s, v);
    else
        r = v->len == e->len ? 0 : -EUCLEAN;
    if (r == 0)
        *content = steal(&v);
    return r;
}

static int
read_entry(const struct span *der, uint32_t index, struct der_entry *e, struct sealer *s,
           struct vault **content)
{
    AUTO(node_freep) asn1_node node = NULL;
    int r = node_decode(&node, "Entry", der);

    if (r < 0)
        return r;
    return get_entry(node, e) ? get_content(node, index, e, s, content) : -EUCLEAN;
}

static int
read_entries(struct span entries, const char *source, struct sealer *s, der_sink *sink, void *arg)
{
    char last[NAME_MAX_LEN + 1] = "";

    for (uint32_t i = 0; entries.n > 0; i++) {
        AUTO(vault_freep) struct vault *content = NULL;
        struct der_entry e = {0};
        struct span der, body;
        int r = i < MAX_SLOTS && der_cut(&entries, DER_SEQUENCE, &der, &body) == 0
                    ? read_entry(&der, i, &e, s, &content)
                    : -EUCLEAN;

        if (r == 0 && strcmp(e.name, last) <= 0)
            return report(-EUCLEAN,
                          "%s: entry %" PRIu32 ": its name is there twice, or out of order", source,
                          i);
        if (r == -EUCLEAN || r == -EBADMSG)
            return report(r, "%s: entry %" PRIu32 ": %s", source, i,
                          r == -EBADMSG ? "it is not what was sealed" : "it is not as it must be");
        if (r == 0) {
            strcpy(last, e.name);
            e.data = content->bytes;
            r = sink(arg, &e, &content);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

int
der_read(const uint8_t *buf, size_t len, const char *source, struct sealer *s, der_sink *sink,
         void *arg)
{
    struct der_head h = {0};
    struct parts p;
    struct iovec iov;
    int r = cut_stream(&p, buf, len, source);

    if (r == 0)
        r = read_head(&h, &p, source);
    if (r < 0)
        return r;
    if (h.sealed != (s->ops->mode != SEAL_NONE))
        return -EINVAL;
    iov = (struct iovec){(void *)(uintptr_t)p.body.p, p.body.n};
    r = tell(sealer_verify(s, SEAL_DIRECTORY, &iov, 1, p.tag));
    if (r == -EUCLEAN || r == -EBADMSG)
        return report(r, "%s: %s", source,
                      h.sealed ? "it is not what was sealed" : "its digest is wrong");
    if (r < 0)
        return r;
    return read_entries(p.entries, source, s, sink, arg);
}
