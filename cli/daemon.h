/* SPDX-License-Identifier: BSD-3-Clause */
/* daemon.h - a process that goes to the background once it works, and tells who started it.
 *
 * The front process waits until the daemon says that it is ready (daemon_ready()) or ends, whose
 * exit code is then its own.  Until it is ready the daemon stays in the front's session, with its
 * terminal for a passphrase and its stderr for reports. */
#ifndef VNVRAM_CLI_DAEMON_H
#define VNVRAM_CLI_DAEMON_H

#include "base/sandbox.h"
#include <stdbool.h>
#include <sys/types.h>

struct daemon {
    bool foreground;
    int ready_fd; /* -1 in the foreground, and so is: */
    int null_fd;  /* /dev/null, for when nothing can be opened any more */
};

/* Makes 0, 1 and 2 open and closes every other descriptor but @keep and @keep_too (-1: none), which
 * are marked close-on-exec: what a parent left open must not be held for the life of a mount. umask
 * 077, and children can be waited for. */
void daemon_clean_up(int keep, int keep_too);

/* Forks, unless @foreground.  Returns 0 in the daemon; 1 in the front when all is over, with *@code
 * the front's exit code; or a negative errno (reported). */
int daemon_fork(struct daemon *d, bool foreground, int *code);

/* Ignores SIGHUP and SIGPIPE, blocks SIGTERM and SIGINT and returns a signalfd for them, or a
 * negative errno (reported). */
int daemon_signals(void);

/* Gives up for good what a daemon does not need whose image, mount and children are there: all
 * capabilities but CAP_LEASE, and CAP_KILL if its child @child (0: none) is another user's; every
 * path; every system call but those for what is open (asynchronous writes only if it @sends), for
 * threads, for syslog and a service manager, and for what @connect says.  Before threads.  A
 * negative errno (reported). */
int daemon_confine(pid_t child, bool is_others, bool sends, const struct sandbox_connect *connect);

/* Leaves the terminal and stderr (reports go to the journal where stderr is it, else to syslog),
 * sends READY=1 to a service manager that asks for it, lets the front go.  False when a signal has
 * ended the front before it could tell that the daemon is there: then it is to end. */
bool daemon_ready(struct daemon *d);
void daemon_stopping(void); /* tells the service manager */

/* How often a service manager that keeps a watchdog over this process wants to hear from it; -1: it
 * does not. */
int daemon_watchdog_ms(void);
void daemon_alive(void);

#endif
