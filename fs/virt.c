/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/virt.h"
#include "base/scope.h"
#include "fs/json.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    MAX_IMAGES = 4, /* open ones that differ: each is as large in memory as what the image holds */
    SLOT_BITS = 16,
};

struct virt {
    struct store *store;
    struct virt_options opt;
    bool sealed;

    pthread_mutex_t lock;
    struct open_image {
        struct snapshot *snapshot;
        size_t opens;
    } images[MAX_IMAGES];
    /* The kernel does not deliver every release of a mount that is taken away. */
    struct virt_file *open;
};

/* An open status or image. */
struct virt_file {
    char *text;
    size_t len;
    struct snapshot *snapshot;
    struct virt_file **link, *next; /* in virt.open; link: what points here */
};

static const struct {
    const char *name;
    uint64_t ino;
} members[] = {{"status", INO_STATUS},
               {"image", INO_IMAGE},
               {"previous", INO_PREVIOUS},
               {"control", INO_CONTROL}};

enum { N_MEMBERS = sizeof members / sizeof *members };

bool
virt_name_is_reserved(const char *name)
{
    return strcmp(name, ".vnvram") == 0 || strcmp(name, "tpm0") == 0;
}

int
virt_new(struct virt **out, struct store *s, const struct virt_options *opt)
{
    struct virt *v = calloc(1, sizeof *v);

    if (!v)
        return -ENOMEM;
    *v = (struct virt){
        .store = s, .opt = *opt, .sealed = store_superblock(s)->seal_mode != SEAL_NONE};
    pthread_mutex_init(&v->lock, NULL);
    *out = v;
    return 0;
}

void
virt_free(struct virt *v)
{
    if (!v)
        return;
    while (v->open)
        virt_release(v, v->open);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

/* ---- attributes ------------------------------------------------------------------------------ */

static uint64_t
previous_ino(const struct content *c)
{
    return INO_FIRST_PREVIOUS | c->generation << SLOT_BITS | c->slot;
}

static mode_t
fixed_mode(uint64_t ino)
{
    switch (ino) {
    case INO_STATUS:
        return S_IFREG | 0444;
    case INO_IMAGE:
        return S_IFREG | 0400; /* an unsealed image is all secrets */
    case INO_CONTROL:
        return S_IFREG | 0200;
    default:
        return S_IFDIR | 0555;
    }
}

static void
fill_fixed(struct virt *v, uint64_t ino, struct stat *st)
{
    bool dir = ino == INO_VIRT || ino == INO_PREVIOUS;
    struct file_attr root;

    v->opt.root(v->opt.root_arg, &root);
    *st = (struct stat){
        .st_ino = ino,
        .st_mode = fixed_mode(ino),
        .st_nlink = dir ? 2 : 1,
        .st_uid = root.uid,
        .st_gid = root.gid,
        .st_size = ino == INO_IMAGE ? (off_t)store_superblock(v->store)->image_size : 0,
        .st_blksize = BLOCK_SIZE,
        .st_mtim = root.mtime,
        .st_ctim = root.ctime,
        .st_atim = root.atime,
    };
    st->st_blocks = st->st_size / 512;
}

/* As the file was, but read-only. */
static void
fill_previous(const struct entry *e, struct stat *st)
{
    *st = (struct stat){
        .st_ino = previous_ino(&e->previous),
        .st_mode = S_IFREG | (e->attr.mode & 0444),
        .st_nlink = 1,
        .st_uid = e->attr.uid,
        .st_gid = e->attr.gid,
        .st_size = (off_t)e->previous.length,
        .st_blksize = BLOCK_SIZE,
        .st_blocks = (blkcnt_t)((e->previous.length + 511) / 512),
        .st_mtim = e->attr.mtime,
        .st_ctim = e->attr.ctime,
        .st_atim = e->attr.atime,
    };
}

/* The entry whose previous content has the inode number @ino. */
static int
find_previous(struct virt *v, uint64_t ino, struct entry *e)
{
    AUTO_FREE struct entry *entries = NULL;
    size_t n = 0;
    int r = store_list(v->store, &entries, &n);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        if (entries[i].previous.generation == 0 || previous_ino(&entries[i].previous) != ino)
            continue;
        *e = entries[i];
        return 0;
    }
    return -ESTALE;
}

int
virt_lookup(struct virt *v, uint64_t parent, const char *name, struct stat *st)
{
    struct entry e;

    if (parent == INO_ROOT && strcmp(name, ".vnvram") == 0) {
        fill_fixed(v, INO_VIRT, st);
        return 0;
    }
    for (size_t i = 0; parent == INO_VIRT && i < N_MEMBERS; i++) {
        if (strcmp(name, members[i].name) == 0) {
            fill_fixed(v, members[i].ino, st);
            return 0;
        }
    }
    if (parent != INO_PREVIOUS || store_find(v->store, name, &e) < 0 ||
        e.previous.generation == 0 || !store_is_whole(v->store, &e.previous))
        return -ENOENT;
    fill_previous(&e, st);
    return 0;
}

int
virt_stat(struct virt *v, uint64_t ino, struct stat *st)
{
    struct entry e;
    int r = 0;

    if (ino < INO_FIRST_PREVIOUS) {
        fill_fixed(v, ino, st);
    } else {
        r = find_previous(v, ino, &e);
        if (r == 0)
            fill_previous(&e, st);
    }
    return r;
}

static bool
next_previous(struct virt *v, uint64_t *at, struct stat *st, char name[NAME_MAX_LEN + 1])
{
    AUTO_FREE struct entry *entries = NULL;
    size_t n = 0;

    if (store_list(v->store, &entries, &n) < 0)
        return false;
    for (size_t i = *at; i < n; i++) {
        if (entries[i].previous.generation == 0 || !store_is_whole(v->store, &entries[i].previous))
            continue;
        fill_previous(&entries[i], st);
        strcpy(name, entries[i].name);
        *at = i + 1;
        return true;
    }
    return false;
}

bool
virt_next(struct virt *v, uint64_t dir, uint64_t *at, struct stat *st, char name[NAME_MAX_LEN + 1])
{
    if (dir == INO_PREVIOUS)
        return next_previous(v, at, st, name);
    if (*at >= N_MEMBERS)
        return false;
    fill_fixed(v, members[*at].ino, st);
    strcpy(name, members[*at].name);
    ++*at;
    return true;
}

/* ---- status ---------------------------------------------------------------------------------- */

static void
put_uuid(FILE *out, const uint8_t u[UUID_SIZE])
{
    fputs("{\n  \"uuid\": \"", out);
    for (int i = 0; i < UUID_SIZE; i++)
        fprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
    fputc('"', out);
}

static const char *
place_name(enum store_place place)
{
    return place == STORE_HERE ? "here" : place == STORE_INCOMING ? "incoming" : "released";
}

/* Null where more than one host cannot reach the image, or nobody minds. */
static void
put_owner(FILE *out, const struct store_info *info)
{
    if (info->owner.epoch == 0) {
        fputs(",\n  \"owner\": null", out);
        return;
    }
    fprintf(out, ",\n  \"owner\": {\"owned\": %s", info->owned ? "true" : "false");
    json_member_string(out, "host", info->owner.host_name);
    json_member_number(out, "epoch", info->owner.epoch);
    json_member_time(out, "since", info->owner.time);
    json_member_bool(out, "guarded", info->guarded);
    fputs("}", out);
}

static void
put_status(struct virt *v, FILE *out)
{
    struct store_info info;

    store_get_info(v->store, &info);
    put_uuid(out, info.uuid);
    json_member_bool(out, "sealed", info.seal_mode != SEAL_NONE);
    json_member_number(out, "generation", info.generation);
    json_member_bool(out, "clean", info.clean);
    json_member_bool(out, "read_only", info.read_only != 0);
    json_member_string(out, "read_only_why", info.read_only ? info.read_only_why : NULL);
    json_member_string(out, "place", place_name(info.place));
    put_owner(out, &info);
    json_member_number(out, "slots_total", info.slots_total);
    json_member_number(out, "slots_used", info.slots_used);
    json_member_number(out, "bytes_total", info.bytes_total);
    json_member_number(out, "bytes_used", info.bytes_used);
    json_member_number(out, "files", info.files);
    json_member_time(out, "last_commit", info.committed);
    json_member_bool(out, "recovered", info.recovered);
    json_member_number(out, "recoveries", info.recoveries);
    json_member_number(out, "flushes", info.flushes);
    if (v->opt.status)
        v->opt.status(v->opt.status_arg, out);
    fputs("\n}\n", out);
}

static int
make_status(struct virt *v, struct virt_file *f)
{
    FILE *out = open_memstream(&f->text, &f->len);
    bool bad;

    if (!out)
        return -ENOMEM;
    put_status(v, out);
    bad = ferror(out);
    /* fclose() says nothing when it finds no memory for the final text. */
    return fclose(out) != 0 || bad || !f->text ? -ENOMEM : 0;
}

/* ---- open, read ------------------------------------------------------------------------------ */

static void
virt_freep(struct virt_file **f)
{
    if (!*f)
        return;
    if ((*f)->snapshot)
        snapshot_put((*f)->snapshot);
    free((*f)->text);
    free(*f);
}

/* The place that counts the opens of @sn, or a free one; NULL when all are taken. */
static struct open_image *
find_image(struct virt *v, const struct snapshot *sn)
{
    struct open_image *free_one = NULL;

    for (size_t i = 0; i < MAX_IMAGES; i++) {
        if (v->images[i].snapshot == sn)
            return &v->images[i];
        if (!v->images[i].snapshot)
            free_one = &v->images[i];
    }
    return free_one;
}

static int
open_image(struct virt *v, struct virt_file *f)
{
    int r = store_snapshot(v->store, &f->snapshot);
    struct open_image *image;

    if (r < 0)
        return r;
    pthread_mutex_lock(&v->lock);
    image = find_image(v, f->snapshot);
    if (image) {
        image->snapshot = f->snapshot;
        image->opens++;
    }
    pthread_mutex_unlock(&v->lock);
    return image ? 0 : -ENFILE;
}

static void
close_image(struct virt *v, const struct virt_file *f)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&v->lock);
    struct open_image *image = find_image(v, f->snapshot);

    if (--image->opens == 0)
        image->snapshot = NULL;
}

static void
enlist(struct virt *v, struct virt_file *f)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&v->lock);

    f->next = v->open;
    f->link = &v->open;
    if (f->next)
        f->next->link = &f->next;
    v->open = f;
}

static void
delist(struct virt *v, struct virt_file *f)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&v->lock);

    *f->link = f->next;
    if (f->next)
        f->next->link = f->link;
}

int
virt_open(struct virt *v, uint64_t ino, struct virt_file **out)
{
    AUTO(virt_freep) struct virt_file *f = NULL;
    struct entry e;
    int r;

    *out = NULL;
    if (ino >= INO_FIRST_PREVIOUS)
        return find_previous(v, ino, &e);
    f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    r = ino == INO_STATUS ? make_status(v, f) : open_image(v, f);
    if (r < 0)
        return r;
    enlist(v, f);
    *out = steal(&f);
    return 0;
}

/* Verifies the whole bank each time: nothing is kept, and nothing but that content is ever shown.
 */
static int
read_previous(struct virt *v, uint64_t ino, char **buf, size_t *len)
{
    struct entry e;
    int r = find_previous(v, ino, &e);
    size_t size = r == 0 ? e.previous.length : 0;

    if (r < 0)
        return r;
    *buf = malloc(size + 1);
    if (!*buf)
        return -ENOMEM;
    r = store_read(v->store, &e.previous, *buf);
    if (r < 0)
        virt_free_data(v, *buf, size);
    *len = size;
    return r;
}

static int
copy_part(struct virt_file *f, size_t n, uint64_t off, char **buf, size_t *got)
{
    uint64_t size = f->snapshot ? snapshot_size(f->snapshot) : f->len;
    int r = 0;

    *got = off >= size ? 0 : n < size - off ? n : (size_t)(size - off);
    *buf = malloc(*got + 1);
    if (!*buf)
        return -ENOMEM;
    if (f->snapshot && *got)
        r = snapshot_pread(f->snapshot, *buf, *got, off);
    else if (*got)
        memcpy(*buf, f->text + off, *got);
    if (r < 0)
        free(*buf);
    return r;
}

int
virt_read(struct virt *v, uint64_t ino, struct virt_file *f, size_t n, uint64_t off, char **buf,
          size_t *got)
{
    char *whole, *part;
    size_t len;
    int r;

    if (f)
        return copy_part(f, n, off, buf, got);
    r = read_previous(v, ino, &whole, &len);
    if (r < 0)
        return r;
    *got = off >= len ? 0 : n < len - off ? n : (size_t)(len - off);
    part = malloc(*got + 1);
    if (part)
        memcpy(part, whole + (*got ? off : 0), *got);
    virt_free_data(v, whole, len);
    *buf = part;
    return part ? 0 : -ENOMEM;
}

void
virt_free_data(struct virt *v, char *buf, size_t n)
{
    if (v->sealed)
        explicit_bzero(buf, n);
    free(buf);
}

void
virt_release(struct virt *v, struct virt_file *f)
{
    if (!f)
        return;
    delist(v, f);
    if (f->snapshot)
        close_image(v, f);
    virt_freep(&f);
}

/* ---- orders ---------------------------------------------------------------------------------- */

/* "reserve SIZE NAME" */
static int
order_reserve(struct virt *v, const char *arguments)
{
    struct change c = {.op = CHANGE_RESERVE};
    unsigned long long size;
    char *end;
    int r;

    errno = 0;
    size = strtoull(arguments, &end, 10);
    if (errno != 0 || *arguments < '0' || *arguments > '9' || *end != ' ')
        return -EINVAL;
    if (size > MAX_CAPACITY)
        return -EFBIG;
    c.len = (size_t)size;
    c.name = end + 1;
    if (virt_name_is_reserved(c.name))
        return -EPERM;
    r = store_commit(v->store, &c, 1, NULL);
    if (r == 0 && v->opt.committed)
        v->opt.committed(v->opt.committed_arg);
    return r;
}

int
virt_order(struct virt *v, const char *text)
{
    static const char reserve[] = "reserve ";

    if (strncmp(text, reserve, strlen(reserve)) != 0)
        return -ENOMSG;
    return order_reserve(v, text + strlen(reserve));
}
