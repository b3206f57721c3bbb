/* SPDX-License-Identifier: BSD-3-Clause */
/* tpmclient - what the guest of the tests asks of its TPM 2.0, through the kernel's /dev/tpm0.
 *
 * Prints the answer in hexadecimal or as decimal numbers.  Exits 1 when the TPM answers an error,
 * and prints its code; 2 when there is no answer. */
#include "base/bytes.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER = 10, OFF_SIZE = 2, OFF_CODE = 6, MAX = 4096, PARAMETERS = HEADER + 4 };
enum { TAG_NO_SESSIONS = 0x8001, TAG_SESSIONS = 0x8002, ALG_SHA256 = 11, SHA256_SIZE = 32 };
enum {
    RH_OWNER = 0x40000001,
    RS_PASSWORD = 0x40000009,
    CC_NV_UNDEFINE = 0x122,
    CC_NV_DEFINE = 0x12a,
    CC_NV_INCREMENT = 0x134,
    CC_NV_WRITE = 0x137,
    CC_NV_READ = 0x14e,
    CC_GET_RANDOM = 0x17b,
    CC_PCR_READ = 0x17e,
    CC_READ_CLOCK = 0x181,
    CC_PCR_EXTEND = 0x182,
};
/* Attributes of an NV index: the owner's, read and write, never locked out; what kind it is. */
enum { NV_OWNERS = 0x02020002, NV_COUNTER = 0x10, NV_ORDERLY = 0x04000000 };

struct command {
    uint8_t buf[MAX];
    size_t len;
};

static void
put16(struct command *c, uint16_t v)
{
    store_be16(c->buf + c->len, v);
    c->len += 2;
}

static void
put32(struct command *c, uint32_t v)
{
    store_be32(c->buf + c->len, v);
    c->len += 4;
}

/* False: it is no hexadecimal text, or too long. */
static bool
put_hex(struct command *c, const char *hex)
{
    for (; *hex; hex += 2) {
        unsigned int byte;

        if (c->len > MAX - 64 || sscanf(hex, "%2x", &byte) != 1 || !hex[1])
            return false;
        c->buf[c->len++] = (uint8_t)byte;
    }
    return true;
}

static void
begin(struct command *c, uint16_t tag, uint32_t code)
{
    c->len = 0;
    put16(c, tag);
    put32(c, 0);
    put32(c, code);
}

/* The empty password, for all. */
static void
put_authorization(struct command *c)
{
    put32(c, 9);
    put32(c, RS_PASSWORD);
    put16(c, 0);
    c->buf[c->len++] = 0;
    put16(c, 0);
}

/* With the owner's authorization, about an NV index. */
static void
begin_nv(struct command *c, uint32_t code, uint32_t nv)
{
    begin(c, TAG_SESSIONS, code);
    put32(c, RH_OWNER);
    put32(c, nv);
    put_authorization(c);
}

/* QEMU 7.2's tpm-crb writes an answer over the command, to memory of the guest.  When that comes
 * after the last of the memory has been migrated, though before the device is, the target's guest
 * is told of an answer, and finds its command. */
enum { UNANSWERED = 3 };

/* 0, 1, 2 or UNANSWERED as the program exits; the answer replaces the command.  Zero beyond its
 * end. */
static int
ask(struct command *c)
{
    int fd = open("/dev/tpm0", O_RDWR | O_CLOEXEC);
    uint32_t code = load_be32(c->buf + OFF_CODE);
    ssize_t n = -1;

    store_be32(c->buf + OFF_SIZE, (uint32_t)c->len);
    if (fd >= 0 && write(fd, c->buf, c->len) == (ssize_t)c->len) {
        memset(c->buf, 0, sizeof c->buf);
        n = read(fd, c->buf, sizeof c->buf);
    }
    if (n < HEADER) {
        printf("no answer: %s\n", n < 0 ? strerror(errno) : "it is short");
        return 2;
    }
    close(fd);
    c->len = (size_t)n;
    if (load_be32(c->buf + OFF_CODE) == 0)
        return 0;
    if (load_be32(c->buf + OFF_CODE) == code) {
        puts("unanswered");
        return UNANSWERED;
    }
    printf("0x%" PRIx32 "\n", load_be32(c->buf + OFF_CODE));
    return 1;
}

static int
ask_quietly(struct command *c)
{
    int r = ask(c);

    if (r == 0)
        puts("done");
    return r;
}

/* Prints the sized buffer at @off of the answer. */
static int
print_sized(const struct command *c, size_t off)
{
    size_t n = load_be16(c->buf + off);

    for (size_t i = 0; i < n && off + 2 + i < c->len; i++)
        printf("%02x", c->buf[off + 2 + i]);
    putchar('\n');
    return 0;
}

/* ---- what can be asked -------------------------------------------------------------------------
 */

static uint32_t
number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 0);
}

static int
get_random(struct command *c, char **args)
{
    int r;

    begin(c, TAG_NO_SESSIONS, CC_GET_RANDOM);
    put16(c, (uint16_t)number(args[0]));
    r = ask(c);
    return r ? r : print_sized(c, HEADER);
}

/* Milliseconds, resets, restarts, and 1 if the clock is safe. */
static int
read_clock(struct command *c, char **args)
{
    const uint8_t *p = c->buf + HEADER + 8;
    int r;

    (void)args;
    begin(c, TAG_NO_SESSIONS, CC_READ_CLOCK);
    r = ask(c);
    if (r == 0)
        printf("%" PRIu64 " %" PRIu32 " %" PRIu32 " %u\n", load_be64(p), load_be32(p + 8),
               load_be32(p + 12), p[16]);
    return r;
}

static int
pcr_read(struct command *c, char **args)
{
    uint32_t pcr = number(args[0]) % 24;
    int r;

    begin(c, TAG_NO_SESSIONS, CC_PCR_READ);
    put32(c, 1);
    put16(c, ALG_SHA256);
    c->buf[c->len++] = 3;
    for (uint32_t i = 0; i < 3; i++)
        c->buf[c->len++] = i == pcr / 8 ? (uint8_t)(1 << pcr % 8) : 0;
    r = ask(c);
    /* after the update counter, the selection and the number of digests */
    return r ? r : print_sized(c, HEADER + 4 + 10 + 4);
}

static int
pcr_extend(struct command *c, char **args)
{
    size_t before;

    begin(c, TAG_SESSIONS, CC_PCR_EXTEND);
    put32(c, number(args[0]));
    put_authorization(c);
    put32(c, 1);
    put16(c, ALG_SHA256);
    before = c->len;
    if (!put_hex(c, args[1]) || c->len - before != SHA256_SIZE)
        return puts("no digest"), 2;
    return ask_quietly(c);
}

static int
define(struct command *c, uint32_t nv, uint32_t attributes, uint16_t size)
{
    begin(c, TAG_SESSIONS, CC_NV_DEFINE);
    put32(c, RH_OWNER);
    put_authorization(c);
    put16(c, 0);
    put16(c, 14);
    put32(c, nv);
    put16(c, ALG_SHA256);
    put32(c, attributes);
    put16(c, 0);
    put16(c, size);
    return ask_quietly(c);
}

static int
nv_define(struct command *c, char **args)
{
    return define(c, number(args[0]), NV_OWNERS, (uint16_t)number(args[1]));
}

static int
nv_counter(struct command *c, char **args)
{
    return define(c, number(args[0]), NV_OWNERS | NV_COUNTER, 8);
}

static int
nv_orderly(struct command *c, char **args)
{
    return define(c, number(args[0]), NV_OWNERS | NV_COUNTER | NV_ORDERLY, 8);
}

static int
nv_undefine(struct command *c, char **args)
{
    begin_nv(c, CC_NV_UNDEFINE, number(args[0]));
    return ask_quietly(c);
}

static int
nv_write(struct command *c, char **args)
{
    size_t at;

    begin_nv(c, CC_NV_WRITE, number(args[0]));
    at = c->len;
    put16(c, 0);
    if (!put_hex(c, args[1]))
        return puts("no data"), 2;
    store_be16(c->buf + at, (uint16_t)(c->len - at - 2));
    put16(c, 0);
    return ask_quietly(c);
}

static int
read_nv(struct command *c, uint32_t nv, uint16_t size)
{
    begin_nv(c, CC_NV_READ, nv);
    put16(c, size);
    put16(c, 0);
    return ask(c);
}

static int
nv_read(struct command *c, char **args)
{
    int r = read_nv(c, number(args[0]), (uint16_t)number(args[1]));

    return r ? r : print_sized(c, PARAMETERS);
}

static int
nv_count(struct command *c, char **args)
{
    int r = read_nv(c, number(args[0]), 8);

    if (r == 0)
        printf("%" PRIu64 "\n", load_be64(c->buf + PARAMETERS + 2));
    return r;
}

static int
nv_increment(struct command *c, char **args)
{
    int r;

    begin_nv(c, CC_NV_INCREMENT, number(args[0]));
    r = ask(c);
    return r ? r : nv_count(c, args);
}

/* Increments until that fails.  Prints each value before the next one is made. */
static int
nv_run(struct command *c, char **args)
{
    int r = 0;

    setlinebuf(stdout);
    while (r == 0 || r == UNANSWERED)
        r = nv_increment(c, args);
    return r;
}

static const struct row {
    const char *name;
    int n_args;
    int (*run)(struct command *c, char **args);
} rows[] = {
    {"random", 1, get_random},         /* SIZE */
    {"clock", 0, read_clock},          /* */
    {"pcr-read", 1, pcr_read},         /* PCR */
    {"pcr-extend", 2, pcr_extend},     /* PCR DIGEST */
    {"nv-define", 2, nv_define},       /* NV SIZE */
    {"nv-counter", 1, nv_counter},     /* NV */
    {"nv-orderly", 1, nv_orderly},     /* NV */
    {"nv-undefine", 1, nv_undefine},   /* NV */
    {"nv-write", 2, nv_write},         /* NV DATA */
    {"nv-read", 2, nv_read},           /* NV SIZE */
    {"nv-count", 1, nv_count},         /* NV */
    {"nv-increment", 1, nv_increment}, /* NV */
    {"nv-run", 1, nv_run},             /* NV */
};

int
main(int argc, char **argv)
{
    static struct command c;

    for (size_t i = 0; argc >= 2 && i < sizeof rows / sizeof *rows; i++)
        if (strcmp(argv[1], rows[i].name) == 0 && argc - 2 == rows[i].n_args)
            return rows[i].run(&c, argv + 2);
    puts("no such command");
    return 2;
}
