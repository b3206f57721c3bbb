/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/der.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/image.h"
#include "cli/parcel.h"
#include "cli/target.h"
#include "der/store.h"
#include <errno.h>
#include <fcntl.h>
#include <gcrypt.h>
#include <string.h>

int
der_check(const struct options *o)
{
    if (!o->der && (o->plain || o->new_key.given))
        return report(-EINVAL, "%s goes with --der", o->plain ? "--plain" : "-n");
    if (!o->der)
        return 0;
    if (o->n_args != 2)
        return report(-EINVAL, "--der takes an image and a file: all of the image is in it");
    if (o->swtpm || o->swtpm_form != SWTPM_FORM_NONE || o->name || o->tpm.version != 0)
        return report(-EINVAL, "--der is for a whole store: --swtpm, --tpm and --name are not");
    if (o->plain && o->new_key.given)
        return report(-EINVAL, "--plain is without a key, and -n gives one");
    return 0;
}

/* ---- export ------------------------------------------------------------------------------------
 */

/* The key that is to open the stream; NULL: it is not sealed. */
static struct key_options *
export_key(struct options *o)
{
    if (o->plain)
        return NULL;
    return o->new_key.given ? &o->new_key : o->key.given ? &o->key : NULL;
}

static int
make_sealer(struct der_head *h, struct key_options *key, struct sealer **s)
{
    *s = sealer_plain();
    h->sealed = key != NULL;
    if (!key)
        return 0;
    gcry_randomize(h->stream, sizeof h->stream, GCRY_STRONG_RANDOM);
    return keys_new_volume(key, h->stream, h->keyslots, &h->key_size, s);
}

static int
make_stream(struct vault **stream, const struct parcels *p, const struct parcel_origin *from,
            struct key_options *key)
{
    AUTO_FREE struct der_entry *entries = calloc(p->n + 1, sizeof *entries);
    AUTO(sealer_freep) struct sealer *s = NULL;
    struct der_head h = {
        .generation = from->info.generation,
        .committed = from->info.committed,
        .root = from->root,
    };
    int r = entries ? make_sealer(&h, key, &s) : report(-ENOMEM, "out of memory");

    if (r < 0)
        return r;
    memcpy(h.uuid, from->info.uuid, UUID_SIZE);
    for (size_t i = 0; i < p->n; i++) {
        const struct parcel *x = &p->list[i];

        entries[i] = (struct der_entry){
            .capacity = x->room,
            .generation = x->generation,
            .attr = x->attr,
            .data = x->content->bytes,
            .len = x->content->len,
        };
        strcpy(entries[i].name, x->name);
    }
    return der_write(stream, &h, entries, p->n, s);
}

static int
write_stream(const struct vault *stream, const char *path)
{
    AUTO(target_fini) struct target t = TARGET_INIT;
    const bool is_stdout = strcmp(path, "-") == 0;
    int r = is_stdout ? target_stdout(&t, "a DER stream") : target_open(&t, path);

    if (r == 0)
        r = target_write(&t, stream->bytes, stream->len);
    if (r < 0 || is_stdout)
        return r;
    r = target_flush(&t);
    return r < 0 ? r : target_publish(&t, 1);
}

int
der_export(struct options *o)
{
    AUTO(parcels_fini) struct parcels p = PARCELS_INIT;
    AUTO(vault_freep) struct vault *stream = NULL;
    struct parcel_origin from = {0};
    const struct parcel_take what = {.hidden = true, .origin = &from};
    struct key_options *key = export_key(o);
    int r;

    o->new_key.of = o->args[1];
    r = key ? keys_read(key, key == &o->new_key) : 0; /* before the image is looked at */
    if (r < 0)
        return finding_exit_code(r);
    r = parcels_take(&p, o, o->args[0], &what);
    if (r < 0)
        return image_advise(o->args[0], r);
    r = make_stream(&stream, &p, &from, key);
    return finding_exit_code(r < 0 ? r : write_stream(stream, o->args[1]));
}

/* ---- import ------------------------------------------------------------------------------------
 */

static int
read_stream(struct vault **stream, const char *path)
{
    AUTO_FD int fd = -1;

    if (strcmp(path, "-") == 0)
        return parcel_read(STDIN_FILENO, "standard input", stream);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return fd < 0 ? report(-EIO, "%s: cannot open: %s", path, errno_text(-errno))
                  : parcel_read(fd, path, stream);
}

static int
open_sealed(const struct der_head *h, struct options *o, const char *path, struct sealer **s)
{
    struct key_options *key = o->new_key.given ? &o->new_key : &o->key;
    struct superblock sb;
    int r;

    if (!key->given || o->plain)
        return report(-ENOKEY,
                      "%s: the stream is sealed: give its key with -n, or, when it is the image's, "
                      "with -o",
                      path);
    der_sealing(h, &sb);
    o->new_key.of = path;
    r = keys_read(key, false);
    if (r == 0)
        r = keys_unlock(key, &sb, s);
    return r < 0 ? report(r, "%s: the stream does not open: %s", path, finding_name(r)) : 0;
}

static int
open_plain(struct options *o, const char *path, struct sealer **s)
{
    if (o->new_key.given)
        return report(-EKEYREVOKED, "%s: a key was given for the stream, and it is not sealed",
                      path);
    if (o->key.given && !o->plain)
        return report(-EKEYREVOKED,
                      "%s: the stream is not sealed, so anybody may have made it, and a key was "
                      "given: if you trust where it comes from, say --plain",
                      path);
    *s = sealer_plain();
    return 0;
}

static int
gather_entry(void *arg, const struct der_entry *e, struct vault **content)
{
    struct parcels *p = arg;
    int r = parcels_add(p, e->name, content, "the stream");

    if (r < 0)
        return r == -EINVAL ? -EUCLEAN : r; /* a name that is reserved is no wrong use here */
    p->list[p->n - 1].room = e->capacity;
    p->list[p->n - 1].has_attr = true;
    p->list[p->n - 1].attr = e->attr;
    return 0;
}

static int
gather_stream(struct parcels *p, struct der_head *h, struct options *o, const char *path)
{
    AUTO(vault_freep) struct vault *stream = NULL;
    AUTO(sealer_freep) struct sealer *s = NULL;
    int r = read_stream(&stream, path);

    if (r == 0)
        r = der_read_head(h, stream->bytes, stream->len, path);
    if (r < 0)
        return r;
    r = h->sealed ? open_sealed(h, o, path, &s) : open_plain(o, path, &s);
    return r < 0 ? r : der_read(stream->bytes, stream->len, path, s, gather_entry, p);
}

int
der_import(struct options *o)
{
    AUTO(parcels_fini) struct parcels p = PARCELS_INIT;
    struct der_head h;
    struct parcel_commit how = {.replace = o->replace, .root = &h.root};
    int r = gather_stream(&p, &h, o, o->args[1]);

    if (r < 0)
        return finding_exit_code(r);
    return image_advise(o->args[0], parcels_commit(&p, o, o->args[0], &how));
}
