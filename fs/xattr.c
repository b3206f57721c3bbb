/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/xattr.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "user.vnvram."

typedef void put_fn(const struct node_info *info, char *out);

static void
put_number(char *out, uint64_t n)
{
    snprintf(out, XATTR_VALUE_SIZE, "%" PRIu64, n);
}

static void
put_slot(const struct node_info *info, char *out)
{
    put_number(out, info->slot);
}

static void
put_bank(const struct node_info *info, char *out)
{
    put_number(out, info->content.bank);
}

static void
put_generation(const struct node_info *info, char *out)
{
    put_number(out, info->content.generation);
}

static void
put_capacity(const struct node_info *info, char *out)
{
    put_number(out, info->capacity);
}

static void
put_length(const struct node_info *info, char *out)
{
    put_number(out, info->content.length);
}

static void
put_digest(const struct node_info *info, char *out)
{
    for (size_t i = 0; i < SEAL_TAG_SIZE; i++)
        snprintf(out + 2 * i, 3, "%02x", info->content.digest[i]);
}

static void
put_crc32(const struct node_info *info, char *out)
{
    snprintf(out, XATTR_VALUE_SIZE, "%08" PRIx32, info->crc32);
}

static void
put_sealed(const struct node_info *info, char *out)
{
    strcpy(out, info->sealed ? "yes" : "no");
}

static void
put_dirty(const struct node_info *info, char *out)
{
    strcpy(out, info->dirty ? "yes" : "no");
}

static const struct {
    const char *name;
    put_fn *put;
} attributes[] = {
    {PREFIX "slot", put_slot},
    {PREFIX "bank", put_bank},
    {PREFIX "generation", put_generation},
    {PREFIX "capacity", put_capacity},
    {PREFIX "length", put_length},
    {PREFIX "digest", put_digest},
    {PREFIX "crc32", put_crc32},
    {PREFIX "sealed", put_sealed},
    {PREFIX "dirty", put_dirty},
};

enum { N_ATTRIBUTES = sizeof attributes / sizeof *attributes };

bool
xattr_is_ours(const char *name)
{
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0;
}

int
xattr_get(struct nodes *ns, uint64_t id, const char *name, char value[XATTR_VALUE_SIZE])
{
    struct node_info info;
    size_t i = 0;
    int r;

    while (i < N_ATTRIBUTES && strcmp(name, attributes[i].name) != 0)
        i++;
    if (i == N_ATTRIBUTES)
        return -ENODATA;
    r = node_get_info(ns, id, attributes[i].put == put_crc32, &info);
    if (r == 0)
        attributes[i].put(&info, value);
    return r;
}

size_t
xattr_list(char names[XATTR_NAMES_SIZE])
{
    size_t len = 0;

    for (size_t i = 0; i < N_ATTRIBUTES; i++) {
        size_t n = strlen(attributes[i].name) + 1;

        memcpy(names + len, attributes[i].name, n);
        len += n;
    }
    return len;
}
