/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/layout.h"
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>

static void
print_json(const struct superblock *sb, uint64_t need)
{
    struct json_object *root = json_object_new_object();
    struct json_object *slots = json_object_new_array();

    json_object_object_add(root, "size", json_object_new_uint64(need));
    for (int i = 0; i < sb->n_segments; i++) {
        struct json_object *slot = json_object_new_object();

        json_object_object_add(slot, "count", json_object_new_uint64(sb->segments[i].count));
        json_object_object_add(slot, "capacity", json_object_new_uint64(sb->segments[i].capacity));
        json_object_array_add(slots, slot);
    }
    json_object_object_add(root, "slots", slots);
    puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY));
    json_object_put(root);
}

static void
print_text(const struct superblock *sb, uint64_t need)
{
    char text[SIZE_TEXT];

    printf("%" PRIu64 " bytes (%s) for", need, size_text(text, need));
    for (int i = 0; i < sb->n_segments; i++)
        printf("%s %" PRIu32 " x %s", i ? "," : "", sb->segments[i].count,
               size_text(text, sb->segments[i].capacity));
    putchar('\n');
}

int
cmd_size(struct options *o)
{
    AUTO_FREE struct superblock *sb = calloc(1, sizeof *sb);
    struct format_spec spec = {0};
    uint64_t need = 0;
    int r = sb ? layout_from_options(&spec, o) : report(-ENOMEM, "out of memory");

    if (r < 0)
        return finding_exit_code(r);
    spec.image_size = 0; /* the profiles round up */
    r = store_layout(sb, &spec, &need);
    if (r < 0)
        return finding_exit_code(
            report(r, "such slots and reservations cannot be laid out: %s", finding_name(r)));
    if (o->json)
        print_json(sb, need);
    else
        print_text(sb, need);
    return EXIT_DONE;
}
