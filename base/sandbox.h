/* SPDX-License-Identifier: BSD-3-Clause */
/* sandbox.h - what a process gives up for good, once all that it needs is open.
 *
 * Three layers, each of which holds without the others: capabilities, seccomp (which system calls)
 * and Landlock (which paths, where the kernel has it).  All are per thread and inherited by threads
 * made later: enter with one thread. */
#ifndef VNVRAM_BASE_SANDBOX_H
#define VNVRAM_BASE_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SANDBOX_CAP(cap) (UINT64_C(1) << (cap))

/* Takes all capabilities but those of @keep from what any later exec could gain; where that is
 * allowed at all. */
void sandbox_bound_capabilities(uint64_t keep);
/* Keeps those of @keep that the process has, in the effective and the permitted set, drops all
 * others in every set, and sets no_new_privs.  A negative errno, not reported. */
int sandbox_keep_capabilities(uint64_t keep);
/* Those that the process could use. */
uint64_t sandbox_capabilities(void);

enum sandbox_paths {
    SANDBOX_NO_PATHS, /* nothing can be opened, created, removed, renamed, mounted */
    SANDBOX_BENEATH,  /* but files beneath .dir */
    SANDBOX_ANY_PATH,
};

/* Connecting again to one server that is known already; all zero: none. */
struct sandbox_connect {
    bool local;            /* by a Unix domain socket */
    uint16_t port;         /* or by TCP, to this port */
    bool resolve;          /* whose host's name is looked up each time */
    const char *file;      /* a file that is read for it, or NULL */
    const char *directory; /* one whose files are */
};

struct sandbox_options {
    /* System calls beside those that every process of ours needs: memory, threads, time,
     * randomness, and reading and writing what is open. */
    const int *calls;
    size_t n_calls;
    enum sandbox_paths paths;
    int dir;
    pid_t child;  /* may be signalled and waited for; 0: there is none */
    bool may_log; /* may make datagram sockets and connect them: syslog, sd_notify(3) */
    struct sandbox_connect connect;
};

/* After sandbox_keep_capabilities().  What is not allowed fails with EPERM; a foreign
 * architecture's system call kills.  Returns 0 or a negative errno (reported).  A kernel without
 * Landlock is no error.  In a build with sanitizers, which trace and open files at exit, it does
 * nothing. */
int sandbox_enter(const struct sandbox_options *opt);

/* A small process beside the daemon: forked off it early, it does one thing for it, with a right
 * that the daemon gives up, for as long as their socket lasts. */
struct sandbox_helper {
    const char *name; /* for ps */
    const int *calls; /* as in sandbox_options; with any path */
    size_t n_calls;
    uint64_t capabilities; /* that it keeps */
};

enum { SANDBOX_HELPER_FD = 3 };

/* For a process that ends with the daemon and not before: named @name, in a session of its own,
 * deaf to the signals that end one or a job, and without a core. */
void sandbox_leave_session(const char *name);
/* What a helper does first: it leaves the session, has @fd as SANDBOX_HELPER_FD and nothing else of
 * the daemon's, /dev/null as its standard descriptors, and "/" as its directory.  @confined: it
 * enters its sandbox.  Returns 0 or a negative errno. */
int sandbox_be_helper(const struct sandbox_helper *h, int fd, bool confined);

/* The version of Landlock's interface that the kernel has; 0: none. */
int sandbox_landlock_version(void);

#endif
