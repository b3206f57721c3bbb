/* SPDX-License-Identifier: BSD-3-Clause */
/* limits.c - clients that ask too much, one a command; tests/mount_limits.sh runs them.
 *
 *   handles N FILE      opens N handles; says so, and holds them until standard input ends
 *   snapshots N FILE IMAGE  writes FILE and opens IMAGE, N times, and holds them like that
 *   write FILE BYTES    writes until that many are written or it fails; prints how many, and why
 *   readers N MS FILE   N threads that open and read the whole file for so long; prints how often
 *   lookups N DIR       looks up N names that are not there
 *   command TPM         writes a command, says so, waits for a byte of standard input, reads the
 * response latency DIR         uses DIR as others do until standard input ends; prints the longest
 * wait in ms
 *
 * What it says are whole lines on standard output.  Exit status 1 after an error. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, READER_STACK = 64 * 1024 };

static int
fail(const char *what)
{
    perror(what);
    return 1;
}

static void
say(const char *text)
{
    puts(text);
    fflush(stdout);
}

static void
wait_for_end(void)
{
    char byte;

    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

static int64_t
now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void
allow_descriptors(void)
{
    struct rlimit l;

    getrlimit(RLIMIT_NOFILE, &l);
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
}

static int
handles(char **argv)
{
    long n = atol(argv[0]);

    allow_descriptors();
    for (long i = 0; i < n; i++)
        if ((i % 2 || open(argv[1], O_RDWR) < 0) && open(argv[1], O_RDONLY) < 0)
            return fail(argv[1]);
    say("open");
    wait_for_end();
    return 0;
}

static int
snapshots(char **argv)
{
    long n = atol(argv[0]), i = 0;

    for (; i < n; i++) {
        int fd = open(argv[1], O_WRONLY);

        if (fd < 0 || write(fd, &i, sizeof i) != (ssize_t)sizeof i || close(fd) < 0)
            return fail(argv[1]);
        if (open(argv[2], O_RDONLY) < 0)
            break;
    }
    printf("%ld %s\n", i, i < n ? strerrorname_np(errno) : "all");
    fflush(stdout);
    wait_for_end();
    return 0;
}

static int
write_much(char **argv)
{
    char *chunk = malloc(CHUNK);
    long long want = atoll(argv[1]), done = 0;
    int fd = open(argv[0], O_WRONLY | O_CREAT, 0600);
    ssize_t put = 0;

    if (fd < 0 || !chunk)
        return fail(argv[0]);
    memset(chunk, 'x', CHUNK);
    while (done < want && (put = write(fd, chunk, CHUNK)) > 0)
        done += put;
    printf("%lld %s\n", done, put < 0 ? strerrorname_np(errno) : "all");
    free(chunk);
    return close(fd) < 0 ? fail("close") : 0;
}

static const char *reader_file;
static int64_t readers_end;
static atomic_ulong reads, reader_errors;

static void *
reader(void *arg)
{
    static _Thread_local char buf[16384];

    do {
        int fd = open(reader_file, O_RDONLY);
        ssize_t n;

        while ((n = fd < 0 ? -1 : read(fd, buf, sizeof buf)) > 0)
            ;
        if (n < 0)
            reader_errors++;
        if (fd >= 0)
            close(fd);
        reads++;
    } while (now_us() < readers_end);
    return arg;
}

static int
readers(char **argv)
{
    long n = atol(argv[0]);
    pthread_t *threads = calloc((size_t)n, sizeof *threads);
    pthread_attr_t attr;

    allow_descriptors();
    readers_end = now_us() + atol(argv[1]) * 1000;
    reader_file = argv[2];
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, READER_STACK);
    for (long i = 0; i < n; i++)
        if ((errno = pthread_create(&threads[i], &attr, reader, NULL)) != 0)
            return fail("thread");
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    printf("%lu reads, %lu errors\n", reads, reader_errors);
    return 0;
}

static int
lookups(char **argv)
{
    long n = atol(argv[0]);
    char name[32];
    struct stat st;

    if (chdir(argv[1]) < 0)
        return fail(argv[1]);
    for (long i = 0; i < n; i++) {
        snprintf(name, sizeof name, "missing-%ld", i);
        if (stat(name, &st) == 0 || errno != ENOENT)
            return fail(name);
    }
    return 0;
}

static int
command(char **argv)
{
    static const uint8_t get_random[] = {0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8};
    uint8_t response[4096];
    int fd = open(argv[0], O_RDWR);
    char byte;

    if (fd < 0 || write(fd, get_random, sizeof get_random) != (ssize_t)sizeof get_random)
        return fail(argv[0]);
    say("written");
    if (read(STDIN_FILENO, &byte, 1) < 0)
        return fail("standard input");
    printf("%zd\n", read(fd, response, sizeof response));
    return 0;
}

/* One round of what clients do.  False when anything fails. */
static bool
use(int i)
{
    struct stat st;
    char buf[512] = {0};
    int fd = open("latency", O_RDWR | O_CREAT, 0600);
    bool good = fd >= 0 && pread(fd, buf, sizeof buf, 0) >= 0 && fstat(fd, &st) == 0;

    if (good && i % 8 == 0)
        good = pwrite(fd, buf, sizeof buf, 0) == (ssize_t)sizeof buf && fsync(fd) == 0;
    return fd >= 0 && close(fd) == 0 && good;
}

static int
latency(char **argv)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    int64_t longest = 0;

    if (chdir(argv[0]) < 0)
        return fail(argv[0]);
    for (int i = 0; poll(&p, 1, 1) == 0; i++) {
        int64_t start = now_us(), took;

        if (!use(i))
            return fail("latency");
        took = now_us() - start;
        if (took > longest)
            longest = took;
    }
    printf("%lld\n", (long long)(longest + 999) / 1000);
    return 0;
}

int
main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int args;
        int (*run)(char **argv);
    } commands[] = {
        {"handles", 2, handles}, {"snapshots", 3, snapshots}, {"write", 2, write_much},
        {"readers", 3, readers}, {"lookups", 2, lookups},     {"command", 1, command},
        {"latency", 1, latency},
    };

    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0 && argc - 2 == commands[i].args)
            return commands[i].run(argv + 2);
    fprintf(stderr, "usage: see tests/limits.c\n");
    return 2;
}
