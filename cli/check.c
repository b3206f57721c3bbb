/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/check.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/anchor.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/owner.h"
#include "cli/salvage.h"
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

/* What one run of check_image() said. */
struct notes {
    struct note {
        int r;
        char *where, *text;
    } * list;
    size_t n;
};

static void
take_note(void *arg, int r, const char *where, const char *text)
{
    struct notes *notes = arg;
    struct note *grown = reallocarray(notes->list, notes->n + 1, sizeof *grown);

    if (!grown)
        return; /* the result counts it all the same */
    notes->list = grown;
    grown[notes->n++] = (struct note){r, strdup(where), strdup(text)};
}

static void
notes_fini(struct notes *notes)
{
    for (size_t i = 0; i < notes->n; i++) {
        free(notes->list[i].where);
        free(notes->list[i].text);
    }
    free(notes->list);
    *notes = (struct notes){0};
}

static int
check_once(const char *path, struct options *o, struct notes *notes, struct check_result *res)
{
    AUTO(dev_closep) struct dev *d = NULL;
    int r = dev_open(&d, path, DEV_READ_ONLY | DEV_NO_LOCK, &o->dev);

    if (r < 0)
        return r;
    return check_image(d, image_unlock_if_given, &o->key, take_note, notes, res);
}

/* Again while a daemon's commit may have been caught in the middle. */
static int
check_with_retries(const char *path, struct options *o, struct notes *notes,
                   struct check_result *res)
{
    int r =
        o->key.given ? keys_read(&o->key, false) : 0; /* asks, maybe: before the image is open */

    if (r < 0)
        return r;
    for (int try = 1;; try++) {
        *res = (struct check_result){0};
        image_hold_reports();
        r = check_once(path, o, notes, res);
        if ((r != -EUCLEAN && r != -EBADMSG) || try == LOOK_TRIES)
            break;
        image_drop_reports();
        notes_fini(notes);
        image_pause();
    }
    image_show_reports();
    return r;
}

/* ---- repair -------------------------------------------------------------------------------------
 */

/* Opening for writing is the repair: it restores a superblock copy from the other and settles over
 * a torn commit.  Each writes the bad copy only, and what a power cut leaves of it was bad before.
 */
static int
open_and_settle(struct dev **d, struct options *o)
{
    AUTO(anchor_closep) struct anchor *anchor = NULL;
    struct store_options opt = {
        .repair = true,
        .unlock = keys_unlock,
        .unlock_arg = &o->key,
        .owner = owner_from_options(o, o->args[0]),
    };
    struct store *s;
    int r = anchor_from_options(&anchor, o, false);

    opt.anchor = anchor;
    if (r == 0)
        r = store_open(&s, *d, &opt);
    if (r < 0)
        return r;
    steal(d); /* the store's */
    r = store_settle(s);
    store_close(s);
    return r;
}

/* Whether what check found (@r) can leave good copies to mend from.  Where somebody has tampered,
 * no copy is proven. */
static bool
is_mendable(const struct notes *notes, int r)
{
    return notes->n > 0 && (r == 0 || r == -EUCLEAN);
}

static bool
has_note(const struct notes *notes, const struct note *n)
{
    for (size_t i = 0; i < notes->n; i++) {
        if (strcmp(notes->list[i].where, n->where) == 0)
            return true;
    }
    return false;
}

/* Holds the image from the check to the repair.  *@before gets what the check noted. */
static int
repair(const char *path, struct options *o, struct notes *before)
{
    AUTO(dev_closep) struct dev *d = NULL;
    struct check_result res;
    int r = o->key.given ? keys_read(&o->key, false) : 0;

    if (r == 0)
        r = dev_open(&d, path, 0, &o->dev);
    if (r < 0)
        return r;
    r = check_image(d, image_unlock_if_given, &o->key, take_note, before, &res);
    if (is_mendable(before, r))
        return open_and_settle(&d, o);
    return r < 0 ? report(r, "%s: nothing was mended", path) : 0;
}

/* Checks, mends, checks again.  What the first check noted and the second no longer does is mended:
 * *@mended gets it, @notes and @res tell what is left. */
static int
check_and_repair(const char *path, struct options *o, struct notes *mended, struct notes *notes,
                 struct check_result *res)
{
    AUTO(notes_fini) struct notes before = {0};
    int failed = repair(path, o, &before), r;

    if (failed < 0 && before.n == 0)
        return failed; /* it could not be looked at */
    r = check_with_retries(path, o, notes, res);
    for (size_t i = 0; i < before.n; i++) {
        const struct note *n = &before.list[i];
        AUTO_FREE char *was = strndup(n->text, strcspn(n->text, ";")); /* without what to do */

        if (!has_note(notes, n))
            take_note(mended, n->r, n->where, was ? was : n->text);
    }
    return failed < 0 ? failed : r;
}

/* ---- the answer --------------------------------------------------------------------------------
 */

static void
print_text(const char *path, const struct notes *mended, const struct notes *notes,
           const struct check_result *res)
{
    for (size_t i = 0; i < mended->n; i++)
        printf("%s: %s: mended; it was %s\n", path, mended->list[i].where, mended->list[i].text);
    for (size_t i = 0; i < notes->n; i++)
        printf("%s: %s: %s\n", path, notes->list[i].where, notes->list[i].text);
    printf("%s: %u structures verified%s, %u problem%s\n", path, res->structures,
           res->authenticated ? " and authenticated" : "", res->problems,
           res->problems == 1 ? "" : "s");
}

static struct json_object *
json_notes(const struct notes *notes)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < notes->n; i++) {
        const struct note *n = &notes->list[i];
        struct json_object *note = json_object_new_object();

        json_add_text(note, "where", n->where);
        json_add_text(note, "finding", n->r ? finding_name(n->r) : NULL);
        json_add_text(note, "text", n->text);
        json_object_array_add(list, note);
    }
    return list;
}

static void
print_json(const char *path, const struct notes *mended, const struct notes *notes,
           const struct check_result *res, int r)
{
    struct json_object *root = json_object_new_object();

    json_add_text(root, "image", path);
    json_add_text(root, "finding", r ? finding_name(r) : NULL);
    json_object_object_add(root, "structures", json_object_new_int64(res->structures));
    json_object_object_add(root, "problems", json_object_new_int64(res->problems));
    json_object_object_add(root, "authenticated", json_object_new_boolean(res->authenticated));
    json_object_object_add(root, "mended", json_notes(mended));
    json_object_object_add(root, "notes", json_notes(notes));
    puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY));
    json_object_put(root);
}

int
cmd_check(struct options *o)
{
    AUTO(notes_fini) struct notes mended = {0};
    AUTO(notes_fini) struct notes notes = {0};
    struct check_result res = {0};
    const char *path = o->args[0];
    int r;

    if (o->salvage && (o->repair || o->json))
        return finding_exit_code(report(-EINVAL, "--salvage stands alone"));
    if (o->anchor && !o->repair)
        return finding_exit_code(report(-EINVAL, "anchor= is of use with --repair only; "
                                                 "\"vnvram info\" compares the two"));
    if (o->salvage)
        return image_advise(path, salvage_image(path, o->salvage, o));
    r = o->repair ? check_and_repair(path, o, &mended, &notes, &res)
                  : check_with_retries(path, o, &notes, &res);
    if (o->json)
        print_json(path, &mended, &notes, &res, r);
    else if (r == 0 || notes.n > 0)
        print_text(path, &mended, &notes, &res);
    return image_advise(path, r);
}
