/* SPDX-License-Identifier: BSD-3-Clause */
/* posix_cases.c - what POSIX and Linux promise of a flat directory of regular files.
 *
 *     posix_cases [-r] DIR           all cases, one TAP line each; DIR is emptied between cases
 *     posix_cases [-r] DIR before    leaves files with attributes and contents behind ...
 *     posix_cases [-r] DIR after     ... and finds them again, after another mount of the image
 *
 *     posix_cases DIR steps          runs steps (posix_run.h) from standard input, a line at a
 * time, and answers each line with "ok" or "not ok" and why
 *
 * -r: DIR is on an ordinary file system (ext4), the reference: cases about what vnvram refuses are
 * left out.  Cases that change users are skipped when not run as root. */
#include "tests/posix_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH(a) (sizeof(a) / sizeof(a)[0])

struct steps_case {
    const char *name, *steps;
};

static bool reference;
static int count, failures;

static void
tell(bool good, const char *group, const char *name)
{
    count++;
    printf("%s %d - %s: %s\n", good ? "ok" : "not ok", count, group, name);
    if (!good) {
        printf("# %s\n", run_why());
        failures++;
    }
    fflush(stdout);
}

static void
one(const char *group, const char *name, const char *steps)
{
    run_reset();
    tell(run_steps(steps), group, name);
}

static void
all(const char *group, const struct steps_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        one(group, cases[i].name, cases[i].steps);
}

/* ---- the tables --------------------------------------------------------------------------------
 */

static const struct steps_case chmod_cases[] = {
    {"sets 0111", "create a 0644; chmod a 0111; is a mode 0111"},
    {"sets 0000", "create a 0644; chmod a 0; is a mode 0"},
    {"sets 0777", "create a 0644; chmod a 0777; is a mode 0777"},
    {"keeps set-uid, set-gid and sticky", "create a 0644; chmod a 07777; is a mode 07777"},
    {"sets set-uid alone", "create a 0644; chmod a 04711; is a mode 04711"},
    {"sets set-gid alone", "create a 0644; chmod a 02755; is a mode 02755"},
    {"sets sticky alone", "create a 0644; chmod a 01600; is a mode 01600"},
    {"does not take bits above 07777", "create a 0644; chmod a 0100640; is a mode 0640"},
    {"by descriptor",
     "create a 0644; open 1 a rdonly; fchmod 1 0600; is a mode 0600; fis 1 mode 0600"},
    {"shows in an older descriptor", "create a 0644; open 1 a rdwr; chmod a 0400; fis 1 mode 0400"},
    {"moves ctime on", "create a 0644; mark a; chmod a 0600; later a c; same a am"},
    {"to the same mode moves ctime on", "create a 0644; mark a; chmod a 0644; later a c"},
    {"refused leaves ctime alone",
     "create a 0644; mark a; as 1001 1001; chmod a 0600 =EPERM; as 0 0; same a c"},
    {"by the owner",
     "create a 0644; chown a 1001 2001; as 1001 2001; chmod a 0600; is a mode 0600"},
    {"by another user", "create a 0644; chown a 1001 2001; as 1002 2001; chmod a 0777 =EPERM"},
    {"by a member of the group only",
     "create a 0664; chown a 1001 2001; as 1002 2001; chmod a 0600 =EPERM"},
    {"by root on another's file", "create a 0644; chown a 1001 2001; chmod a 0620; is a mode 0620"},
    {"by a descriptor of another user",
     "umask 0; create a 0666; as 1002 1002; open 1 a rdwr; fchmod 1 0777 =EPERM"},
    {"by the owner outside the group drops set-gid",
     "create a 0644; chown a 1001 2001; as 1001 1001; chmod a 02755; is a mode 0755"},
    {"by the owner with the group as supplementary keeps set-gid",
     "create a 0644; chown a 1001 2001; as 1001 1001 2001; chmod a 02755; is a mode 02755"},
    {"by the owner keeps sticky on a file",
     "create a 0644; chown a 1001 1001; as 1001 1001; chmod a 01644; is a mode 01644"},
    {"of an unlinked open file",
     "open 1 a rdwr,creat 0644; unlink a; fchmod 1 0600; fis 1 mode 0600"},
    {"of nothing", "chmod a 0644 =ENOENT"},
    {"beneath a file", "create a 0644; chmod a/b 0644 =ENOTDIR"},
    {"of a name too long", "chmod 256* 0644 =ENAMETOOLONG"},
    {"of a path too long", "chmod 4100*/ 0644 =ENAMETOOLONG"},
    {"of the longest name", "create 255* 0644; chmod 255* 0600; is 255* mode 0600"},
    {"of a file needs search in the directory",
     "create a 0644; chown a 1001 1001; chmod . 0644; as 1001 1001; chmod a 0600 =EACCES"},
    {"of the directory", "chmod . 0700; is . mode 0700; chmod . 01777; is . mode 01777"},
    {"of the directory moves its ctime on", "mark .; chmod . 0711; later . c"},
    {"of the directory by another", "as 1001 1001; chmod . 0777 =EPERM"},
};

static const struct steps_case chown_cases[] = {
    {"sets owner and group", "create a 0644; chown a 1234 5678; is a uid 1234; is a gid 5678"},
    {"with uid -1 sets the group",
     "create a 0644; chown a 10 20; chown a -1 30; is a uid 10; is a gid 30"},
    {"with gid -1 sets the owner",
     "create a 0644; chown a 10 20; chown a 30 -1; is a uid 30; is a gid 20"},
    {"with both -1 changes neither",
     "create a 0644; chown a 10 20; chown a -1 -1; is a uid 10; is a gid 20"},
    {"takes ids past 2^31",
     "create a 0644; chown a 4000000000 4000000001; is a uid 4000000000; is a gid 4000000001"},
    {"by descriptor",
     "open 1 a rdwr,creat 0644; fchown 1 7 8; is a uid 7; is a gid 8; fis 1 uid 7"},
    {"lchown of a file", "create a 0644; lchown a 7 8; is a uid 7; is a gid 8"},
    {"moves ctime on", "create a 0644; mark a; chown a 7 8; later a c; same a am"},
    {"to the same owner moves ctime on",
     "create a 0644; chown a 7 8; mark a; chown a 7 8; later a c"},
    {"refused leaves ctime alone",
     "create a 0644; mark a; as 1001 1001; chown a 1001 1001 =EPERM; as 0 0; same a c; is a uid 0"},
    {"the owner gives the file away",
     "create a 0644; chown a 1001 1001; as 1001 1001; chown a 1002 -1 =EPERM"},
    {"the owner to an own supplementary group",
     "create a 0644; chown a 1001 1001; as 1001 1001 2002; chown a -1 2002; is a gid 2002; is a "
     "uid 1001"},
    {"the owner names itself and an own group",
     "create a 0644; chown a 1001 1001; as 1001 1001 2002; chown a 1001 2002; is a gid 2002"},
    {"the owner to a foreign group",
     "create a 0644; chown a 1001 1001; as 1001 1001; chown a -1 2002 =EPERM"},
    {"another user to its own group",
     "create a 0644; chown a 1001 1001; as 1002 2002; chown a -1 2002 =EPERM"},
    {"another user changes nothing by name",
     "create a 0644; chown a 1001 1001; as 1002 2002; chown a 1001 1001 =EPERM"},
    {"root clears set-uid and set-gid of a program",
     "create a 0644; chmod a 06555; chown a 7 8; is a mode 0555"},
    {"root keeps set-gid without group execute",
     "create a 0644; chmod a 02644; chown a 7 8; is a mode 02644"},
    {"root clears set-uid without execute",
     "create a 0644; chmod a 04644; chown a 7 8; is a mode 0644"},
    {"root keeps sticky", "create a 0644; chmod a 01644; chown a 7 8; is a mode 01644"},
    {"the owner clears set-uid and set-gid", "create a 0644; chown a 1001 1001; chmod a 06555; as "
                                             "1001 1001 2002; chown a -1 2002; is a mode 0555"},
    {"the owner clears set-uid and keeps the rest",
     "create a 0644; chown a 1001 1001; chmod a 04755; as 1001 1001 2002; chown a 1001 2002; is a "
     "mode 0755"},
    {"another user with both -1 changes neither",
     "create a 0644; as 1002 1002; chown a -1 -1; is a uid 0; is a gid 0"},
    {"root with both -1 keeps sticky",
     "create a 0644; chmod a 01644; chown a -1 -1; is a mode 01644"},
    {"the owner with one -1 clears set-uid", "create a 0644; chown a 1001 1001; chmod a 06555; as "
                                             "1001 1001; chown a -1 1001; is a mode 0555"},
    {"of an unlinked open file",
     "open 1 a rdwr,creat 0644; unlink a; fchown 1 7 8; fis 1 uid 7; fis 1 gid 8"},
    {"of nothing", "chown a 7 8 =ENOENT"},
    {"beneath a file", "create a 0644; chown a/b 7 8 =ENOTDIR"},
    {"of a name too long", "chown 256* 7 8 =ENAMETOOLONG"},
    {"of the longest name", "create 255* 0644; chown 255* 7 8; is 255* gid 8"},
    {"needs search in the directory",
     "create a 0644; chown a 1001 1001; chmod . 0600; as 1001 1001 2002; chown a -1 2002 =EACCES"},
    {"of the directory", "chown . 7 8; is . uid 7; is . gid 8"},
    {"of the directory keeps its set-gid", "chmod . 02755; chown . 7 8; is . mode 02755"},
};

static const struct steps_case open_cases[] = {
    {"O_CREAT makes an empty file",
     "open 1 a wronly,creat 0644; is a size 0; is a type 0100000; is a nlink 1"},
    {"O_CREAT takes the mode", "open 1 a wronly,creat 0751; is a mode 0751"},
    {"O_CREAT takes set-uid, set-gid and sticky",
     "umask 0; open 1 a wronly,creat 07777; is a mode 07777"},
    {"O_CREAT in the directory's group by its owner",
     "chown . 65534 65534; as 65534 65533; create a 0644; is a uid 65534; is a gid 65533"},
    {"O_CREAT minds the umask", "umask 077; open 1 a wronly,creat 0777; is a mode 0700"},
    {"O_CREAT minds every umask bit", "umask 070; open 1 a wronly,creat 0345; is a mode 0305"},
    {"O_CREAT with umask 0501", "umask 0501; open 1 a wronly,creat 0345; is a mode 0244"},
    {"O_CREAT with mode 0 still writes",
     "open 1 a rdwr,creat 0; write 1 hello; fhas 1 hello; is a mode 0"},
    {"O_CREAT with a read-only mode still writes",
     "open 1 a rdwr,creat 0444; write 1 hello; fhas 1 hello"},
    {"O_CREAT gives the caller's ids",
     "chmod . 0777; as 1001 2001; create a 0644; is a uid 1001; is a gid 2001"},
    {"O_CREAT in a set-gid directory takes its group",
     "chmod . 02777; chown . 0 3003; as 1001 2001; create a 0644; is a uid 1001; is a gid 3003; is "
     "a mode 0644"},
    {"O_CREAT stamps the file",
     "create a 0644; is a atime recent; is a mtime recent; is a ctime recent"},
    {"O_CREAT moves the directory's mtime and ctime on", "mark .; create a 0644; later . mc"},
    {"O_CREAT of what is there leaves the directory's times alone",
     "create a 0644; mark .; open 1 a rdwr,creat 0644; same . mc"},
    {"O_CREAT of what is there leaves its mode and times alone",
     "create a 0640; mark a; open 1 a rdwr,creat 0777; is a mode 0640; same a mc"},
    {"O_EXCL on what is there", "create a 0644; open 1 a wronly,creat,excl 0644 =EEXIST"},
    {"O_EXCL on a new name", "open 1 a wronly,creat,excl 0644; is a size 0"},
    {"O_EXCL after unlink", "create a 0644; unlink a; open 1 a wronly,creat,excl 0644"},
    {"without O_CREAT of nothing", "open 1 a rdonly =ENOENT"},
    {"O_TRUNC empties", "put a hello; open 1 a wronly,trunc; is a size 0; has a ''"},
    {"O_TRUNC moves mtime and ctime on", "put a hello; mark a; open 1 a wronly,trunc; later a mc"},
    {"O_TRUNC of an empty file moves mtime and ctime on",
     "create a 0644; mark a; open 1 a wronly,trunc; later a mc"},
    {"O_TRUNC keeps the mode", "create a 0751; open 1 a wronly,trunc; is a mode 0751"},
    {"O_TRUNC shows in an older descriptor",
     "put a hello; open 1 a rdonly; open 2 a wronly,trunc; fhas 1 ''"},
    {"O_TRUNC by the wrong user keeps the content",
     "put a hello; as 1001 1001; open 1 a wronly,trunc =EACCES; as 0 0; has a hello"},
    {"O_TRUNC drops set-uid for others",
     "create a 0666; chmod a 04666; as 1001 1001; open 1 a wronly,trunc; is a mode 0666"},
    {"O_APPEND writes at the end",
     "put a hello; open 1 a wronly,append; write 1 world; has a helloworld"},
    {"O_APPEND minds what others wrote",
     "open 1 a wronly,append,creat 0644; open 2 a wronly; write 2 hello; write 1 x; has a hellox"},
    {"O_APPEND pwrite appends too",
     "put a hello; open 1 a wronly,append; pwrite 1 0 x; has a hellox"},
    {"O_APPEND after a truncate",
     "put a hello; open 1 a wronly,append; write 1 x; truncate a 2; write 1 y; has a hey"},
    {"O_APPEND moves the position",
     "put a hello; open 1 a rdwr,append; write 1 xy; lseek 1 0 cur 7"},
    {"O_RDONLY does not write", "put a x; open 1 a rdonly; write 1 y =EBADF"},
    {"O_WRONLY does not read", "put a x; open 1 a wronly; read 1 x =EBADF"},
    {"O_SYNC writes", "open 1 a wronly,creat,sync 0644; write 1 hello; has a hello"},
    {"O_DSYNC writes", "open 1 a wronly,creat,dsync 0644; write 1 hello; has a hello"},
    {"O_DIRECTORY of a file", "create a 0644; open 1 a rdonly,directory =ENOTDIR"},
    {"O_DIRECTORY of the directory", "open 1 . rdonly,directory; fsync 1"},
    {"of the directory for writing", "open 1 . wronly =EISDIR"},
    {"of the directory for reading and writing", "open 1 . rdwr =EISDIR"},
    {"of the directory with O_CREAT", "open 1 . rdonly,creat 0644 =EISDIR"},
    {"reading a directory's bytes", "open 1 . rdonly; read 1 '' =EISDIR"},
    {"O_NOFOLLOW of a file", "put a x; open 1 a rdonly,nofollow; read 1 x"},
    {"O_NONBLOCK of a file", "put a x; open 1 a rdonly,nonblock; read 1 x"},
    {"O_PATH", "put a x; open 1 a path; fis 1 size 1; read 1 x =EBADF"},
    {"O_NOATIME by another user", "create a 0644; as 1001 1001; open 1 a rdonly,noatime =EPERM"},
    {"beneath a file", "create a 0644; open 1 a/b rdonly =ENOTDIR"},
    {"beneath a file with O_CREAT", "create a 0644; open 1 a/b rdonly,creat 0644 =ENOTDIR"},
    {"with a slash behind a file", "create a 0644; open 1 a/ rdonly =ENOTDIR"},
    {"O_CREAT with a slash behind", "open 1 a/ wronly,creat 0644 =EISDIR"},
    {"of the longest name", "open 1 255* wronly,creat 0644; is 255* size 0; count 1"},
    {"of a name too long", "open 1 256* rdonly =ENAMETOOLONG"},
    {"O_CREAT of a name too long", "open 1 256* wronly,creat 0644 =ENAMETOOLONG; count 0"},
    {"O_CREAT needs write in the directory",
     "as 1001 1001; open 1 a wronly,creat 0644 =EACCES; as 0 0; count 0"},
    {"O_CREAT needs search in the directory",
     "chmod . 0766; as 1001 1001; open 1 a wronly,creat 0644 =EACCES"},
    {"needs search in the directory",
     "create a 0666; chmod . 0766; as 1001 1001; open 1 a rdonly =EACCES"},
    {"listing needs read on the directory", "chmod . 0711; as 1001 1001; open 1 . rdonly =EACCES"},
    {"a name found without listing rights", "put a x; chmod . 0711; as 1001 1001; has a x"},
    {"an open descriptor outlives the rights",
     "umask 0; create a 0666; as 1001 1001; open 1 a rdwr; as 0 "
     "0; chmod a 0; as 1001 1001; write 1 x; fhas 1 x"},
    {"root reads what nobody may", "put a x; chmod a 0; has a x"},
    {"two openers see one file",
     "open 1 a rdwr,creat 0644; open 2 a rdwr; write 1 hello; fhas 2 hello; "
     "pwrite 2 0 j; fhas 1 jello"},
    {"names differ by case", "create a 0644; create A 0644; count 2"},
    {"names of odd bytes", "create \x01\xff\xfe 0644; is \x01\xff\xfe size 0; count 1"},
    {"names of dots", "create ... 0644; create ..a 0644; create .a 0644; count 3"},
};

static const struct steps_case rename_cases[] = {
    {"moves the file", "put a hello; rename a b; has b hello; is a size 0 =ENOENT; count 1"},
    {"keeps the inode", "put a hello; open 1 a rdonly; rename a b; sameino b 1"},
    {"keeps mode and owner", "create a 0644; chown a 7 8; chmod a 0751; rename a b; is b mode "
                             "0751; is b uid 7; is b gid 8"},
    {"replaces an existing file", "put a new; put b old; rename a b; has b new; count 1"},
    {"replaces and takes the new one's attributes",
     "create a 0600; create b 0644; rename a b; is b mode 0600"},
    {"leaves the replaced file to its openers",
     "put a new; put b old; open 1 b rdonly; rename a b; fhas 1 old; fis 1 nlink 0; has b new"},
    {"leaves the moved file to its openers",
     "put a hello; open 1 a rdwr; rename a b; write 1 j; has b jello; fis 1 nlink 1"},
    {"onto itself does nothing", "put a hello; mark a; rename a a; has a hello; same a m; count 1"},
    {"moves ctime on, not mtime", "put a hello; mark a; rename a b; later b c; same b m"},
    {"moves the directory's mtime and ctime on", "create a 0644; mark .; rename a b; later . mc"},
    {"refused leaves the file's ctime alone",
     "create a 0644; mark a; as 1001 1001; rename a b =EACCES; as 0 0; same a c"},
    {"of nothing", "rename a b =ENOENT"},
    {"of nothing keeps the target", "put b x; rename a b =ENOENT; has b x"},
    {"onto the directory", "create a 0644; rename a . =EBUSY"},
    {"of the directory", "rename . b =EBUSY"},
    {"from beneath a file", "create a 0644; rename a/b c =ENOTDIR"},
    {"to beneath a file", "create a 0644; create b 0644; rename a b/c =ENOTDIR"},
    {"to the longest name", "put a x; rename a 255*; has 255* x"},
    {"from the longest name", "put 255* x; rename 255* a; has a x; count 1"},
    {"to a name too long", "create a 0644; rename a 256* =ENAMETOOLONG; count 1"},
    {"from a name too long", "rename 256* a =ENAMETOOLONG"},
    {"there and back again", "put a x; rename a b; rename b a; has a x; count 1"},
    {"NOREPLACE to a free name", "put a x; rename a b noreplace; has b x; count 1"},
    {"NOREPLACE onto a file", "put a x; put b y; rename a b noreplace =EEXIST; has a x; has b y"},
    {"NOREPLACE onto itself", "put a x; rename a a noreplace =EEXIST; has a x"},
    {"EXCHANGE swaps", "put a x; put b yy; rename a b exchange; has a yy; has b x; count 2"},
    {"EXCHANGE swaps attributes",
     "create a 0600; create b 0644; rename a b exchange; is a mode 0644; is b mode 0600"},
    {"EXCHANGE keeps the inodes", "create a 0644; create b 0644; open 1 a rdonly; open 2 b rdonly; "
                                  "rename a b exchange; sameino b 1; sameino a 2"},
    {"EXCHANGE moves both ctimes on",
     "create a 0644; create b 0644; mark b; rename a b exchange; later a c; later b c"},
    {"EXCHANGE with nothing", "create a 0644; rename a b exchange =ENOENT; count 1"},
    {"EXCHANGE of nothing", "create b 0644; rename a b exchange =ENOENT; count 1"},
    {"EXCHANGE twice is none",
     "put a x; put b y; rename a b exchange; rename a b exchange; has a x; has b y"},
    {"EXCHANGE with NOREPLACE", "create a 0644; create b 0644; rename a b both =EINVAL"},
    {"needs write in the directory",
     "create a 0644; chown a 1001 1001; as 1001 1001; rename a b =EACCES"},
    {"needs search in the directory",
     "create a 0644; chown a 1001 1001; chmod . 0766; as 1001 1001; rename a b =EACCES"},
    {"needs no rights on the file",
     "create a 0; chmod . 0777; as 1001 1001; rename a b; as 0 0; is b mode 0"},
    {"while written through a descriptor",
     "open 1 a wronly,creat 0644; write 1 he; rename a b; write 1 llo; close 1; has b hello"},
    {"over a file that is being written", "put a new; open 1 b wronly,creat 0644; write 1 old; "
                                          "rename a b; write 1 er; close 1; has b new; count 1"},
    {"then a new file of the old name",
     "put a x; open 1 a rdwr; rename a b; put a y; fhas 1 x; has a y; has b x; count 2"},
};

static const struct steps_case truncate_cases[] = {
    {"grows with zeroes", "put a hello; truncate a 10; is a size 10; has a hello+.*5"},
    {"grows from nothing", "create a 0644; truncate a 12345; has a .*12345"},
    {"shrinks", "put a hello; truncate a 2; has a he"},
    {"to nothing", "put a hello; truncate a 0; has a ''; is a size 0"},
    {"to the same size", "put a hello; truncate a 5; has a hello"},
    {"shrinks and grows with zeroes", "put a hello; truncate a 2; truncate a 5; has a he+.*3"},
    {"shrinks and grows past a page",
     "put a x*9000; truncate a 4097; truncate a 9000; has a x*4097+.*4903"},
    {"shrinks in a page, grows to its end",
     "put a x*4096; truncate a 100; truncate a 4096; has a x*100+.*3996"},
    {"moves mtime and ctime on", "put a hello; mark a; truncate a 3; later a mc"},
    {"to the same size moves ctime on", "put a hello; mark a; truncate a 5; later a c"},
    {"refused leaves the times alone",
     "put a hello; mark a; as 1001 1001; truncate a 1 =EACCES; as 0 0; same a mc; has a hello"},
    {"keeps mode and owner",
     "create a 0640; chown a 7 8; truncate a 9; is a mode 0640; is a uid 7"},
    {"drops set-uid for others",
     "put a hello; chmod a 04666; as 1001 1001; truncate a 1; is a mode 0666"},
    {"by another with write rights",
     "put a hello; chmod a 0622; as 1001 1001; truncate a 1; is a size 1"},
    {"to a negative size", "put a hello; truncate a -1 =EINVAL; has a hello"},
    {"of nothing", "truncate a 1 =ENOENT"},
    {"by the owner drops set-uid",
     "put a hello; chown a 1001 1001; chmod a 04755; as 1001 1001; truncate a 1; is a mode 0755"},
    {"of the directory", "truncate . 0 =EISDIR"},
    {"beneath a file", "create a 0644; truncate a/b 1 =ENOTDIR"},
    {"of a name too long", "truncate 256* 1 =ENAMETOOLONG"},
    {"of the longest name", "create 255* 0644; truncate 255* 7; is 255* size 7"},
    {"needs search in the directory",
     "create a 0666; chmod . 0766; as 1001 1001; truncate a 1 =EACCES"},
    {"shows in an open descriptor",
     "put a hello; open 1 a rdonly; truncate a 2; fhas 1 he; fis 1 size 2"},
    {"by descriptor grows", "open 1 a rdwr,creat 0644; write 1 hi; ftruncate 1 6; fhas 1 hi+.*4"},
    {"by descriptor shrinks", "put a hello; open 1 a rdwr; ftruncate 1 1; has a h"},
    {"by descriptor leaves the position",
     "open 1 a rdwr,creat 0644; write 1 hello; ftruncate 1 2; write 1 x; has a he+.*3+x"},
    {"by descriptor moves mtime and ctime on",
     "put a hello; open 1 a wronly; mark a; ftruncate 1 1; later a mc"},
    {"by descriptor moves them on at the same size",
     "put a hello; open 1 a wronly; mark a; ftruncate 1 5; later a mc"},
    {"by descriptor without rights on the file",
     "chmod . 0777; as 1001 1001; open 1 a rdwr,creat 0; ftruncate 1 9; fis 1 size 9"},
    {"by a read-only descriptor",
     "put a hello; open 1 a rdonly; ftruncate 1 1 =EINVAL; has a hello"},
    {"by descriptor to a negative size",
     "put a hello; open 1 a wronly; ftruncate 1 -1 =EINVAL; has a hello"},
    {"by a descriptor of the directory", "open 1 . rdonly; ftruncate 1 0 =EINVAL"},
    {"by a closed descriptor", "ftruncate 9 0 =EBADF"},
    {"of an unlinked open file",
     "open 1 a rdwr,creat 0644; write 1 hello; unlink a; ftruncate 1 2; fhas 1 he"},
};

static const struct steps_case unlink_cases[] = {
    {"removes the name", "create a 0644; unlink a; is a size 0 =ENOENT; count 0"},
    {"of nothing", "unlink a =ENOENT"},
    {"twice", "create a 0644; unlink a; unlink a =ENOENT"},
    {"of the directory", "unlink . =EISDIR"},
    {"beneath a file", "create a 0644; unlink a/b =ENOTDIR"},
    {"with a slash behind", "create a 0644; unlink a/ =ENOTDIR"},
    {"of the longest name", "create 255* 0644; unlink 255*; count 0"},
    {"of a name too long", "unlink 256* =ENAMETOOLONG"},
    {"by rmdir", "create a 0644; rmdir a =ENOTDIR; count 1"},
    {"moves the directory's mtime and ctime on", "create a 0644; mark .; unlink a; later . mc"},
    {"refused leaves the directory's times alone",
     "create a 0644; mark .; as 1001 1001; unlink a =EACCES; as 0 0; same . mc"},
    {"needs write in the directory",
     "create a 0666; chown a 1001 1001; as 1001 1001; unlink a =EACCES; as 0 0; count 1"},
    {"needs search in the directory",
     "create a 0666; chmod . 0766; as 1001 1001; unlink a =EACCES"},
    {"needs no rights on the file",
     "create a 0; chmod . 0777; as 1001 1001; unlink a; as 0 0; count 0"},
    {"leaves the file to its openers",
     "put a hello; open 1 a rdwr; unlink a; fhas 1 hello; fis 1 nlink 0; fis 1 size 5"},
    {"lets openers write on", "open 1 a rdwr,creat 0644; write 1 hello; unlink a; write 1 world; "
                              "fhas 1 helloworld; count 0"},
    {"lets openers write the first byte",
     "open 1 a rdwr,creat 0644; unlink a; write 1 hello; fhas 1 hello; fsync 1"},
    {"lets two openers share on",
     "open 1 a rdwr,creat 0644; open 2 a rdwr; unlink a; write 1 hello; fhas 2 hello"},
    {"moves the open file's ctime on", "open 1 a rdwr,creat 0644; mark a; unlink a; flater 1 c"},
    {"then a new file of that name is another",
     "put a old; open 1 a rdwr; unlink a; put a new; fhas 1 old; has a new; write 1 X; has a new; "
     "fhas 1 Xld"},
    {"and fsync of the open file",
     "open 1 a rdwr,creat 0644; write 1 x; unlink a; fsync 1; fdatasync 1; close 1; count 0"},
};

static const struct steps_case utimens_cases[] = {
    {"sets both times", "create a 0644; utimens a 1234567890:123456789 1234567891:987654321; "
                        "is a atime 1234567890:123456789; is a mtime 1234567891:987654321"},
    {"keeps every nanosecond",
     "create a 0644; utimens a 1:1 2:999999999; is a atime 1:1; is a mtime 2:999999999"},
    {"past 2^31 seconds", "create a 0644; utimens a 2147483648:1 2147483649:2; is a atime "
                          "2147483648:1; is a mtime 2147483649:2"},
    {"past 2^32 seconds", "create a 0644; utimens a 4294967296:1 4294967297:2; is a atime "
                          "4294967296:1; is a mtime 4294967297:2"},
    {"before 1970",
     "create a 0644; utimens a -1:999999999 -100:5; is a atime -1:999999999; is a mtime -100:5"},
    {"before 1902", "create a 0644; utimens a -2147483647:7 -2147483647:8; is a atime "
                    "-2147483647:7; is a mtime -2147483647:8"},
    {"at the epoch", "create a 0644; utimens a 0:0 0:0; is a atime 0:0; is a mtime 0:0"},
    {"UTIME_NOW sets the present",
     "create a 0644; utimens a 5 5; utimens a now now; is a atime recent; is a mtime recent"},
    {"UTIME_NOW for atime alone",
     "create a 0644; utimens a 5 6; utimens a now omit; is a atime recent; is a mtime 6"},
    {"UTIME_NOW for mtime alone",
     "create a 0644; utimens a 5 6; utimens a omit now; is a atime 5; is a mtime recent"},
    {"UTIME_OMIT keeps atime",
     "create a 0644; utimens a 5 6; utimens a omit 9:9; is a atime 5; is a mtime 9:9"},
    {"UTIME_OMIT keeps mtime",
     "create a 0644; utimens a 5 6; utimens a 9:9 omit; is a atime 9:9; is a mtime 6"},
    {"UTIME_OMIT twice changes nothing",
     "create a 0644; utimens a 5 6; mark a; utimens a omit omit; same a amc"},
    {"no times at all mean now",
     "create a 0644; utimens a 5 6; utimes_null a; is a atime recent; is a mtime recent"},
    {"moves ctime on", "create a 0644; mark a; utimens a 5 6; later a c; is a ctime recent"},
    {"by descriptor",
     "open 1 a rdwr,creat 0644; futimens 1 5:5 6:6; is a atime 5:5; is a mtime 6:6"},
    {"by a read-only descriptor",
     "create a 0644; open 1 a rdonly; futimens 1 5:5 6:6; is a mtime 6:6"},
    {"with AT_SYMLINK_NOFOLLOW", "create a 0644; utimens a 5:5 6:6 nofollow; is a mtime 6:6"},
    {"with too many nanoseconds", "create a 0644; utimens a 5:1000000000 6:0 =EINVAL"},
    {"by the owner", "create a 0444; chown a 1001 1001; as 1001 1001; utimens a 5 6; is a mtime 6"},
    {"by the owner to now without write rights",
     "create a 0444; chown a 1001 1001; as 1001 1001; utimens a now now; is a mtime recent"},
    {"by another user to a time", "umask 0; create a 0666; as 1001 1001; utimens a 5 6 =EPERM"},
    {"by another user to now with write rights",
     "umask 0; create a 0666; utimens a 5 6; as 1001 1001; utimens a now now; is a mtime recent"},
    {"by another user to now without write rights",
     "create a 0644; as 1001 1001; utimens a now now =EACCES"},
    {"by another user without times and write rights",
     "create a 0644; as 1001 1001; utimes_null a =EACCES"},
    {"by another user without times, with write rights",
     "umask 0; create a 0666; utimens a 5 6; as 1001 1001; utimes_null a; is a mtime recent"},
    {"by another user to now and omit with write rights",
     "umask 0; create a 0666; as 1001 1001; utimens a now omit =EPERM"},
    {"by another user one time and omit",
     "umask 0; create a 0666; as 1001 1001; utimens a omit 5 =EPERM; utimens a 5 omit =EPERM"},
    {"by another user omitting both", "create a 0644; as 1001 1001; utimens a omit omit"},
    {"of nothing", "utimens a 5 6 =ENOENT"},
    {"beneath a file", "create a 0644; utimens a/b 5 6 =ENOTDIR"},
    {"of a name too long", "utimens 256* 5 6 =ENAMETOOLONG"},
    {"of an unlinked open file",
     "open 1 a rdwr,creat 0644; unlink a; futimens 1 5:5 6:6; fis 1 mtime 6:6"},
    {"a read moves an old atime on", "put a x; utimens a 5:5 omit; has a x; is a atime recent"},
    {"O_NOATIME leaves atime alone",
     "put a x; utimens a 5:5 omit; open 1 a rdonly,noatime; read 1 x; is a atime 5:5"},
    {"listing moves the directory's old atime on",
     "create a 0644; utimens . 5:5 omit; count 1; is . atime recent"},
    {"survives a read", "put a x; utimens a omit 6:6; has a x; is a mtime 6:6"},
    {"survives closing a written descriptor",
     "open 1 a wronly,creat 0644; write 1 x; futimens 1 5:5 6:6; close 1; is a mtime 6:6"},
    {"survives fsync",
     "open 1 a wronly,creat 0644; write 1 x; futimens 1 5:5 6:6; fsync 1; is a mtime 6:6"},
    {"survives rename", "put a x; utimens a 5:5 6:6; rename a b; is b mtime 6:6"},
    {"of the directory", "utimens . 5:5 6:6; is . mtime 6:6; is . atime 5:5"},
};

static const struct steps_case data_cases[] = {
    {"write, read", "open 1 a rdwr,creat 0644; write 1 hello; lseek 1 0 set 0; read 1 hello"},
    {"write moves mtime and ctime on", "open 1 a wronly,creat 0644; mark a; write 1 x; later a mc"},
    {"write again moves mtime and ctime on",
     "put a x; open 1 a wronly; mark a; write 1 x; later a mc"},
    {"close and fsync leave mtime alone",
     "open 1 a wronly,creat 0644; write 1 x; mark a; fsync 1; close 1; same a mc"},
    {"a write of nothing changes nothing",
     "put a hello; open 1 a wronly; mark a; write 1 ''; has a hello; same a m"},
    {"a write of nothing past the end does not grow",
     "put a hello; open 1 a wronly; pwrite 1 100 ''; is a size 5"},
    {"write by another drops set-uid and set-gid",
     "create a 0777; chmod a 06777; as 1001 1001; open 1 a wronly; write 1 x; is a mode 0777"},
    {"write by root keeps set-uid",
     "create a 0777; chmod a 06777; open 1 a wronly; write 1 x; is a mode 06777"},
    {"write by the owner drops set-uid", "create a 0644; chown a 1001 1001; chmod a 04755; as 1001 "
                                         "1001; open 1 a wronly; write 1 x; is a mode 0755"},
    {"its own descriptor shows that set-uid is gone",
     "umask 0; create a 04777; as 65534 65534; open 1 a wronly; write 1 x; fis 1 mode 0777; is a "
     "mode 0777"},
    {"its own descriptor shows that set-gid is gone",
     "umask 0; create a 02777; as 65534 65534; open 1 a rdwr; write 1 x; fis 1 mode 0777; is a "
     "mode 0777"},
    {"a mode set between two writes stays",
     "open 1 a wronly,creat 0644; write 1 x; chmod a 0604; write 1 y; close 1; is a mode 0604"},
    {"read at the end gives nothing", "put a hello; open 1 a rdonly; lseek 1 0 end 5; read 1 ''"},
    {"read past the end gives nothing",
     "put a hello; open 1 a rdonly; lseek 1 100 set 100; read 1 ''"},
    {"pwrite leaves a hole of zeroes",
     "open 1 a rdwr,creat 0644; pwrite 1 10 x; fhas 1 .*10+x; is a size 11"},
    {"pwrite far past the end", "put a he; open 1 a wronly; pwrite 1 50000 y; has a he+.*49998+y"},
    {"pwrite in the middle", "put a hello; open 1 a wronly; pwrite 1 1 u; has a hullo"},
    {"pwrite leaves the position",
     "open 1 a wronly,creat 0644; pwrite 1 5 x; write 1 ab; has a ab+.*3+x"},
    {"pwrite before the start", "open 1 a wronly,creat 0644; pwrite 1 -1 x =EINVAL"},
    {"overwriting shorter keeps the tail", "put a hello; open 1 a wronly; write 1 HE; has a HEllo"},
    {"across a page",
     "open 1 a rdwr,creat 0644; pwrite 1 4090 abcdefghijkl; has a .*4090+abcdefghijkl"},
    {"of 100,000 bytes", "put a x*100000; has a x*100000; is a size 100000"},
    {"of 200,000 bytes by one write", "put a ab*200000+c; is a size 200002; has a ab*200000+c"},
    {"replaced by less", "put a x*5000; put a y; has a y; is a size 1"},
    {"replaced by more", "put a y; put a x*5000; has a x*5000"},
    {"lseek to the end", "put a hello; open 1 a rdwr; lseek 1 0 end 5; write 1 x; has a hellox"},
    {"lseek from the end", "put a hello; open 1 a rdwr; lseek 1 -2 end 3; read 1 lo"},
    {"lseek minds another's write",
     "put a hello; open 1 a rdonly; open 2 a wronly,append; write 2 xy; lseek 1 0 end 7"},
    {"lseek before the start", "put a hello; open 1 a rdonly; lseek 1 -6 end 0 =EINVAL"},
    {"lseek finds data",
     "put a hello; open 1 a rdonly; lseek 1 0 data 0; lseek 1 0 hole 5; lseek 1 5 data 0 =ENXIO"},
    {"fsync of a read-only descriptor", "put a x; open 1 a rdonly; fsync 1; fdatasync 1"},
    {"fsync of a clean file", "put a x; open 1 a rdwr; fsync 1; fsync 1; has a x"},
    {"fsync in the middle of writing",
     "open 1 a rdwr,creat 0644; write 1 he; fsync 1; write 1 llo; fdatasync 1; fhas 1 hello"},
    {"fsync of the directory", "open 1 . rdonly,directory; create a 0644; fsync 1; fdatasync 1"},
    {"posix_fallocate grows with zeroes",
     "open 1 a rdwr,creat 0644; fallocate 1 0 567; is a size 567; has a .*567"},
    {"posix_fallocate keeps content",
     "open 1 a rdwr,creat 0644; write 1 hello; fallocate 1 0 10; has a hello+.*5"},
    {"posix_fallocate inside does not shrink",
     "put a hello; open 1 a rdwr; fallocate 1 0 2; has a hello"},
    {"posix_fallocate past the end",
     "put a hello; open 1 a rdwr; fallocate 1 20000 3842; is a size 23842; has a hello+.*23837"},
    {"posix_fallocate of no bytes", "open 1 a rdwr,creat 0644; fallocate 1 0 0 =EINVAL"},
    {"posix_fallocate at a negative offset", "open 1 a rdwr,creat 0644; fallocate 1 -1 1 =EINVAL"},
    {"posix_fallocate of negative length", "open 1 a rdwr,creat 0644; fallocate 1 1 -1 =EINVAL"},
    {"posix_fallocate read-only", "put a x; open 1 a rdonly; fallocate 1 0 10 =EBADF"},
    {"posix_fallocate by another drops set-uid",
     "umask 0; create a 04777; as 65534 65534; open 1 a rdwr; fallocate 1 0 9; is a mode 0777"},
    {"posix_fallocate refused leaves ctime alone",
     "create a 0644; mark a; open 1 a wronly; fallocate 1 0 0 =EINVAL; same a amc"},
    {"posix_fallocate moves ctime on",
     "open 1 a rdwr,creat 0644; mark a; fallocate 1 0 10; later a c"},
    {"posix_fallocate without rights on the file",
     "chmod . 0777; as 1001 1001; open 1 a rdwr,creat 0; fallocate 1 0 9; fis 1 size 9"},
    {"mknod of a regular file",
     "mknod a reg 0640; is a type 0100000; is a mode 0640; is a size 0; put a x; has a x"},
    {"mknod minds the umask", "umask 027; mknod a reg 0666; is a mode 0640"},
    {"mknod of what is there", "create a 0644; mknod a reg 0644 =EEXIST"},
    {"mknod gives the caller's ids",
     "chmod . 0777; as 1001 2001; mknod a reg 0644; is a uid 1001; is a gid 2001"},
    {"mknod needs write in the directory", "as 1001 1001; mknod a reg 0644 =EACCES"},
    {"mknod of a name too long", "mknod 256* reg 0644 =ENAMETOOLONG"},
    {"mkdir of what is there", "create a 0644; mkdir a =EEXIST"},
    {"symlink over what is there", "create a 0644; symlink x a =EEXIST"},
    {"link over what is there", "create a 0644; create b 0644; link a b =EEXIST"},
    {"link of nothing", "link a b =ENOENT"},
    {"rmdir of nothing", "rmdir a =ENOENT"},
    {"rmdir of the directory", "rmdir . =EINVAL"},
    {"statvfs of the directory", "statvfs ."},
    {"statvfs of a file", "create a 0644; statvfs a"},
    {"the directory is one", "is . type 0040000"},
    {"access of what is there", "create a 0644; access a 0"},
    {"access of nothing", "access a 0 =ENOENT"},
    {"access beneath a file", "create a 0644; access a/b 0 =ENOTDIR"},
    {"access of a name too long", "access 256* 0 =ENAMETOOLONG"},
    {"access to execute what nobody may", "create a 0644; access a 1 =EACCES"},
};

/* What DESIGN says otherwise: no names but of regular files, and slots that end. */
static const struct steps_case own_cases[] = {
    {"mkdir", "mkdir a =EPERM; count 0"},
    {"symlink", "symlink x a =EPERM; count 0"},
    {"link", "put a x; link a b =EPERM; is a nlink 1; count 1"},
    {"fifo", "mknod a fifo 0644 =EPERM; count 0"},
    {"socket", "mknod a sock 0644 =EPERM; count 0"},
    {"character device", "mknod a chr 0644 =EPERM; count 0"},
    {"block device", "mknod a blk 0644 =EPERM; count 0"},
    {"rename with WHITEOUT", "create a 0644; rename a b whiteout =EINVAL; count 1"},
    {"O_TMPFILE", "open 1 . rdwr,tmpfile 0600 =EOPNOTSUPP"},
    {"fills the largest class", "put a x*262144; is a size 262144; has a x*262144"},
    {"a byte past the largest class",
     "put a x*262144; open 1 a wronly,append; write 1 x =EFBIG; is a size 262144"},
    {"a byte far past the largest class",
     "open 1 a wronly,creat 0644; pwrite 1 1000000 x =EFBIG; is a size 0"},
    {"truncate to the largest class", "create a 0644; truncate a 262144; is a size 262144"},
    {"truncate past the largest class", "put a hello; truncate a 262145 =EFBIG; has a hello"},
    {"truncate far past the largest class",
     "put a hello; truncate a 999999999999999 =EFBIG; has a hello"},
    {"ftruncate past the largest class",
     "put a hello; open 1 a rdwr; ftruncate 1 262145 =EFBIG; has a hello"},
    {"ftruncate far past the largest class",
     "put a hello; open 1 a rdwr; ftruncate 1 9223372036854775807 =EFBIG; has a hello"},
    {"posix_fallocate past the largest class",
     "open 1 a rdwr,creat 0644; fallocate 1 0 262145 =EFBIG; is a size 0"},
    {"the reserved name .vnvram", "open 1 .vnvram wronly,creat 0644 =EISDIR"},
    {"rename onto .vnvram", "create a 0644; rename a .vnvram =EISDIR; count 1"},
    {"rename of .vnvram", "rename .vnvram a =EPERM"},
    {"unlink of .vnvram", "unlink .vnvram =EISDIR"},
    {"rmdir of .vnvram", "rmdir .vnvram =EPERM"},
    {"the reserved name tpm0", "open 1 tpm0 wronly,creat 0644 =EPERM; count 0"},
    {"rename onto tpm0", "create a 0644; rename a tpm0 =EPERM; count 1"},
    {"create in .vnvram", "open 1 .vnvram/a wronly,creat 0644 =EPERM"},
    {"mkdir in .vnvram", "mkdir .vnvram/a =EPERM"},
    {"rename into .vnvram", "create a 0644; rename a .vnvram/a =EPERM; count 1"},
    {"rename out of .vnvram", "rename .vnvram/status a =EPERM; count 0"},
    {"link out of .vnvram", "link .vnvram/status a =EPERM; count 0"},
    {"unlink in .vnvram", "unlink .vnvram/status =EPERM; access .vnvram/status 4"},
    {"write to .vnvram/status", "open 1 .vnvram/status wronly =EACCES"},
    {"chmod of .vnvram", "chmod .vnvram 0777 =EPERM"},
    {"chown of .vnvram/status", "chown .vnvram/status 7 8 =EPERM"},
    {"truncate of .vnvram/status", "truncate .vnvram/status 0 =EACCES"},
};

/* ---- matrices ----------------------------------------------------------------------------------
 */

/* Who may open, by each class of permission bits, as owner, as member of the group, and as other.
 */
static void
permission_matrix(void)
{
    static const char *const who[] = {"1001 9009", "9009 2001", "9009 9008 2001", "9009 9009"};
    static const char *const label[] = {"the owner", "the group", "a supplementary group",
                                        "others"};
    static const struct {
        const char *flags;
        int needs;
    } ways[] = {{"rdonly", 4}, {"wronly", 2}, {"rdwr", 6}};
    char name[128], steps[256];

    for (size_t w = 0; w < LENGTH(who); w++)
        for (size_t f = 0; f < LENGTH(ways); f++)
            for (int bits = 0; bits < 8; bits += 2) {
                int shift = w == 0 ? 6 : w == 3 ? 0 : 3;
                unsigned others = 0777u & ~(7u << shift);
                bool may = (bits & ways[f].needs) == ways[f].needs;

                snprintf(name, sizeof name, "%s opens %s with bits %o", label[w], ways[f].flags,
                         bits);
                snprintf(steps, sizeof steps,
                         "create a 0644; chown a 1001 2001; chmod a %#o; as %s; open 1 a %s%s",
                         others | (unsigned)bits << shift, who[w], ways[f].flags,
                         may ? "" : " =EACCES");
                one("permission", name, steps);
            }
}

/* The same for access(2), which goes by the real user. */
static void
access_matrix(void)
{
    static const char *const who[] = {"1001 9009", "9009 2001", "9009 9009"};
    static const char *const label[] = {"the owner", "the group", "others"};
    char name[128], steps[256];

    for (size_t w = 0; w < LENGTH(who); w++)
        for (int bits = 0; bits < 8; bits++)
            for (int want = 1; want < 8; want <<= 1) {
                unsigned shift = 6 - 3 * (unsigned)w, others = 0777u & ~(7u << shift);

                snprintf(name, sizeof name, "%s asks for %o with bits %o", label[w], want, bits);
                snprintf(steps, sizeof steps,
                         "create a 0644; chown a 1001 2001; chmod a %#o; as %s; access a %d%s",
                         others | (unsigned)bits << shift, who[w], want,
                         bits & want ? "" : " =EACCES");
                one("access", name, steps);
            }
}

/* In a sticky directory a name may be removed, renamed or replaced by its file's owner, by the
 * directory's owner, and by root; in a world-writable one without the bit, by everybody. */
static void
sticky_matrix(void)
{
    static const struct {
        const char *what, *step, *error;
    } acts[] = {{"unlinks", "unlink a", "EPERM"},
                {"renames", "rename a c", "EPERM"},
                {"renames over", "rename b a", "EPERM"},
                {"exchanges", "rename b a exchange", "EPERM"}};
    static const struct {
        const char *label, *id;
        bool sticky_may;
    } who[] = {{"the file's owner", "1001", true},
               {"the directory's owner", "1002", true},
               {"another user", "1003", false},
               {"root", "0", true}};
    char name[128], steps[256];

    for (int sticky = 0; sticky < 2; sticky++)
        for (size_t a = 0; a < LENGTH(acts); a++)
            for (size_t w = 0; w < LENGTH(who); w++) {
                bool may = !sticky || who[w].sticky_may;

                snprintf(name, sizeof name, "%s %s in a %s directory", who[w].label, acts[a].what,
                         sticky ? "sticky" : "plain");
                snprintf(steps, sizeof steps,
                         "create a 0644; create b 0644; chown a 1001 5; chown b %s 5; "
                         "chown . 1002 5; chmod . %s; as %s 6; %s%s%s",
                         who[w].id, sticky ? "01777" : "0777", who[w].id, acts[a].step,
                         may ? "" : " =", may ? "" : acts[a].error);
                one("sticky", name, steps);
            }
}

/* Creation modes and umasks, all pairs. */
static void
umask_matrix(void)
{
    static const unsigned modes[] = {0, 0400, 0640, 0666, 0751, 0777};
    static const unsigned masks[] = {0, 022, 077, 0707};
    char name[128], steps[256];

    for (size_t m = 0; m < LENGTH(modes); m++)
        for (size_t u = 0; u < LENGTH(masks); u++) {
            snprintf(name, sizeof name, "mode %#o under umask %#o", modes[m], masks[u]);
            snprintf(steps, sizeof steps, "umask %#o; create a %#o; is a mode %#o", masks[u],
                     modes[m], modes[m] & ~masks[u]);
            one("umask", name, steps);
        }
}

/* ---- cases that are functions ------------------------------------------------------------------
 */

/* Runs @f in a child and gives what it returned. */
static int
in_child(int (*f)(int fd), int fd)
{
    int status;
    pid_t pid = fork();

    if (!pid)
        _exit(f(fd));
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

static int
try_flock_exclusive(int unused)
{
    int fd = open("a", O_RDWR);

    (void)unused;
    return flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
}

static int
try_flock_shared(int unused)
{
    int fd = open("a", O_RDWR);

    (void)unused;
    return flock(fd, LOCK_SH | LOCK_NB) < 0 ? errno : 0;
}

static bool
flock_between_processes(void)
{
    int fd = open("a", O_RDWR | O_CREAT, 0644), r[5];

    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        return run_differs("flock: %m");
    r[0] = in_child(try_flock_exclusive, 0);
    r[1] = in_child(try_flock_shared, 0);
    flock(fd, LOCK_SH);
    r[2] = in_child(try_flock_exclusive, 0);
    r[3] = in_child(try_flock_shared, 0);
    close(fd);
    r[4] = in_child(try_flock_exclusive, 0);
    if (r[0] == EAGAIN && r[1] == EAGAIN && r[2] == EAGAIN && r[3] == 0 && r[4] == 0)
        return true;
    return run_differs("exclusive, shared, exclusive, shared, freed: %d %d %d %d %d", r[0], r[1],
                       r[2], r[3], r[4]);
}

static int
try_fcntl_write(int start)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 10};
    int fd = open("a", O_RDWR);

    return fcntl(fd, F_SETLK, &l) < 0 ? errno : 0;
}

static bool
fcntl_between_processes(void)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
    int fd = open("a", O_RDWR | O_CREAT, 0644), other, r[4];

    if (fd < 0 || fcntl(fd, F_SETLK, &l) < 0)
        return run_differs("fcntl: %m");
    r[0] = in_child(try_fcntl_write, 0);
    r[1] = in_child(try_fcntl_write, 9);
    r[2] = in_child(try_fcntl_write, 10);
    other = open("a", O_RDONLY);
    close(other); /* closing any descriptor of the file frees the process's locks */
    r[3] = in_child(try_fcntl_write, 0);
    close(fd);
    if ((r[0] == EAGAIN || r[0] == EACCES) && (r[1] == EAGAIN || r[1] == EACCES) && !r[2] && !r[3])
        return true;
    return run_differs("locked, overlapping, beside, freed: %d %d %d %d", r[0], r[1], r[2], r[3]);
}

static bool
fcntl_tells_the_holder(void)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int ready[2], done[2], fd;
    char c = 0;
    pid_t pid;
    bool good;

    if (pipe(ready) < 0 || pipe(done) < 0)
        return run_differs("pipe: %m");
    fd = open("a", O_RDWR | O_CREAT, 0644);
    pid = fork();
    if (!pid) {
        int r = fcntl(fd, F_SETLK, &l) < 0;

        r |= write(ready[1], "", 1) != 1 || read(done[0], &c, 1) != 1;
        _exit(r);
    }
    good = read(ready[0], &c, 1) == 1 && fcntl(fd, F_GETLK, &l) == 0 && l.l_type == F_WRLCK &&
           l.l_pid == pid;
    if (!good)
        run_differs("type %d, pid %d, not %d", l.l_type, l.l_pid, pid);
    if (write(done[1], "", 1) != 1)
        good = run_differs("write: %m");
    waitpid(pid, NULL, 0);
    l.l_type = F_WRLCK;
    if (good && fcntl(fd, F_SETLK, &l) < 0)
        good = run_differs("not free after its holder ended: %m");
    close(fd);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(done[i]);
    }
    return good;
}

static int
try_ofd_write(int unused)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open("a", O_RDWR);

    (void)unused;
    return fcntl(fd, F_OFD_SETLK, &l) < 0 ? errno : 0;
}

static bool
ofd_locks_between_descriptors(void)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open("a", O_RDWR | O_CREAT, 0644), r[2];

    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &l) < 0)
        return run_differs("fcntl: %m");
    r[0] = try_ofd_write(0);
    close(fd);
    r[1] = in_child(try_ofd_write, 0);
    return (r[0] == EAGAIN && !r[1]) || run_differs("held, freed: %d %d", r[0], r[1]);
}

static bool
shared_map_and_calls_see_each_other(void)
{
    int fd = open("a", O_RDWR | O_CREAT, 0644);
    char *p, buf[16] = "";
    bool good;

    if (fd < 0 || ftruncate(fd, 8192) < 0)
        return run_differs("ftruncate: %m");
    p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return run_differs("mmap: %m");
    memcpy(p + 4094, "mapped", 6);
    good = pread(fd, buf, 6, 4094) == 6 && !memcmp(buf, "mapped", 6);
    good = good && pwrite(fd, "called", 6, 100) == 6 && !memcmp(p + 100, "called", 6);
    good = good && !msync(p, 8192, MS_SYNC);
    munmap(p, 8192);
    close(fd);
    return good || run_differs("the map and the calls differ");
}

static bool
shared_map_outlives_close_and_unlink(void)
{
    int fd = open("a", O_RDWR | O_CREAT, 0644);
    char *p;
    bool good;

    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return run_differs("ftruncate: %m");
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return run_differs("mmap: %m");
    close(fd);
    unlink("a");
    strcpy(p, "still here");
    good = !msync(p, 4096, MS_SYNC) && !strcmp(p, "still here");
    munmap(p, 4096);
    return (good && run_count() == 0) || run_differs("lost the mapped page");
}

static bool
shared_map_written_after_close_is_in_the_file(void)
{
    int fd = open("a", O_RDWR | O_CREAT, 0644);
    char *p;

    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return run_differs("ftruncate: %m");
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return run_differs("mmap: %m");
    close(fd);
    memset(p, 'm', 4096);
    munmap(p, 4096);
    return run_steps("has a m*4096");
}

static bool
private_map_keeps_its_changes(void)
{
    int fd = open("a", O_RDWR | O_CREAT, 0644);
    char *p;

    if (fd < 0 || write(fd, "hello", 5) != 5)
        return run_differs("write: %m");
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return run_differs("mmap: %m");
    p[0] = 'j';
    munmap(p, 4096);
    return run_steps("has a hello");
}

static bool
listing_is_whole(void)
{
    enum { FILES = 60 };
    unsigned char seen[FILES] = {0};
    char name[32];
    struct dirent *e;
    DIR *d;

    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "file-%02d", i);
        close(open(name, O_WRONLY | O_CREAT, 0644));
    }
    d = opendir(".");
    for (int turn = 0; turn < 2; turn++, rewinddir(d))
        while ((e = readdir(d))) {
            struct stat st;

            if (e->d_name[0] == '.')
                continue;
            if (fstatat(dirfd(d), e->d_name, &st, 0) < 0 || st.st_ino != e->d_ino ||
                e->d_type != DT_REG)
                return closedir(d), run_differs("%s: inode or type differ from stat's", e->d_name);
            seen[atoi(e->d_name + 5)]++;
        }
    closedir(d);
    for (int i = 0; i < FILES; i++)
        if (seen[i] != 2)
            return run_differs("file-%02d seen %d times in two listings", i, seen[i]);
    return true;
}

/* What is there all the time is listed exactly once, whatever goes and comes meanwhile. */
static bool
listing_while_names_come_and_go(void)
{
    enum { FILES = 40 };
    unsigned char seen[FILES] = {0};
    char name[32];
    struct dirent *e;
    DIR *d;

    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "file-%02d", i);
        close(open(name, O_WRONLY | O_CREAT, 0644));
    }
    d = opendir(".");
    for (int step = 0; (e = readdir(d)); step++) {
        if (!strncmp(e->d_name, "file-", 5))
            seen[atoi(e->d_name + 5)]++;
        snprintf(name, sizeof name, "file-%02d", 2 * step + 1);
        if (step < FILES / 2)
            unlink(name);
        snprintf(name, sizeof name, "more-%02d", step);
        if (step < 10)
            close(open(name, O_WRONLY | O_CREAT, 0644));
    }
    closedir(d);
    for (int i = 0; i < FILES; i += 2)
        if (seen[i] != 1)
            return run_differs("file-%02d seen %d times", i, seen[i]);
    return true;
}

static bool
seekdir_comes_back(void)
{
    char first[256], name[32];
    struct dirent *e;
    bool good = false;
    long at;
    DIR *d;

    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "file-%02d", i);
        close(open(name, O_WRONLY | O_CREAT, 0644));
    }
    d = opendir(".");
    for (int i = 0; i < 9; i++)
        readdir(d);
    at = telldir(d);
    e = readdir(d);
    snprintf(first, sizeof first, "%s", e ? e->d_name : "");
    while (readdir(d))
        ;
    seekdir(d, at);
    e = readdir(d);
    good = e && !strcmp(first, e->d_name);
    if (!good)
        run_differs("%s, not %s", e ? e->d_name : "nothing", first);
    closedir(d);
    return good;
}

static int
append_lines(int letter)
{
    int fd = open("a", O_WRONLY | O_APPEND | O_CREAT, 0644);
    char line[8];

    memset(line, letter, sizeof line);
    for (int i = 0; i < 200; i++)
        if (write(fd, line, sizeof line) != sizeof line)
            return 1;
    return close(fd) < 0;
}

static bool
two_appenders_lose_nothing(void)
{
    int n[2] = {0, 0}, fd;
    pid_t pid = fork();
    char line[8];

    if (!pid)
        _exit(append_lines('x'));
    append_lines('y');
    waitpid(pid, NULL, 0);
    fd = open("a", O_RDONLY);
    while (read(fd, line, sizeof line) == sizeof line) {
        for (size_t i = 1; i < sizeof line; i++)
            if (line[i] != line[0])
                return close(fd), run_differs("a torn line");
        n[line[0] == 'y']++;
    }
    close(fd);
    return (n[0] == 200 && n[1] == 200) || run_differs("%d and %d lines of 200", n[0], n[1]);
}

static bool
descriptor_shared_by_fork_has_one_position(void)
{
    int fd = open("a", O_RDWR | O_CREAT, 0644);
    pid_t pid = fork();

    if (!pid)
        _exit(write(fd, "child", 5) != 5);
    waitpid(pid, NULL, 0);
    if (write(fd, "parent", 6) != 6)
        return run_differs("write: %m");
    close(fd);
    return run_steps("has a childparent");
}

static bool
vectors(void)
{
    char a[3], b[4];
    struct iovec out[2] = {{(char[]){'h', 'e', 'l'}, 3}, {(char[]){'l', 'o', 'w', 'd'}, 4}};
    struct iovec in[2] = {{a, sizeof a}, {b, sizeof b}};
    int fd = open("a", O_RDWR | O_CREAT, 0644);
    bool good = writev(fd, out, 2) == 7 && preadv(fd, in, 2, 0) == 7 && !memcmp(a, "hel", 3) &&
                !memcmp(b, "lowd", 4);

    close(fd);
    return good || run_differs("writev, preadv");
}

static bool
copy_range(void)
{
    int in, out;
    ssize_t n;

    if (!run_steps("put a hello+x*5000"))
        return false;
    in = open("a", O_RDONLY);
    out = open("b", O_WRONLY | O_CREAT, 0644);
    n = copy_file_range(in, NULL, out, NULL, 5005, 0);
    close(in);
    close(out);
    return n == 5005 ? run_steps("has b hello+x*5000") : run_differs("copied %zd: %m", n);
}

static bool
directory_relative_calls(void)
{
    int d = open(".", O_PATH | O_DIRECTORY), fd;
    bool good;

    fd = openat(d, "a", O_RDWR | O_CREAT, 0644);
    good = fd >= 0 && write(fd, "x", 1) == 1 && !close(fd) && !renameat(d, "a", d, "b") &&
           !faccessat(d, "b", R_OK, 0) && !unlinkat(d, "b", 0);
    close(d);
    return (good && !run_count()) || run_differs("openat, renameat, faccessat, unlinkat: %m");
}

static bool
space_shows_in_statvfs(void)
{
    return run_steps("statvfs .; put a x*4096; statvfs .; unlink a; statvfs .");
}

static int
touch_past_the_end(int fd)
{
    volatile char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED || ftruncate(fd, 100) < 0)
        return 1;
    p[4095] = 'x'; /* the page of the end is there */
    signal(SIGBUS, _exit);
    p[4096] = 'x';
    return 2;
}

static bool
a_map_ends_with_the_file(void)
{
    int fd = open("a", O_RDWR | O_CREAT, 0644), r;

    if (fd < 0 || ftruncate(fd, 8192) < 0)
        return run_differs("ftruncate: %m");
    r = in_child(touch_past_the_end, fd);
    close(fd);
    if (r != SIGBUS)
        return run_differs("%d, not SIGBUS", r);
    return run_steps("is a size 100; truncate a 5000; has a .*5000");
}

static bool
a_running_program_is_not_written(void)
{
    int status = 0, in[2], started[2], written, truncated, emptied;
    struct stat st;
    pid_t pid;
    char c;

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(started, O_CLOEXEC) < 0 || system("cp /bin/cat a"))
        return run_differs("no program");
    pid = fork();
    if (!pid) {
        dup2(in[0], 0);
        execl("./a", "a", NULL);
        _exit(1);
    }
    close(in[0]);
    close(started[1]);
    if (read(started[0], &c, 1)) /* its exec closes the other end */
        return run_differs("read: %m");
    close(started[0]);
    written = open("a", O_WRONLY) < 0 ? errno : 0;
    truncated = truncate("a", 0) < 0 ? errno : 0;
    emptied = open("a", O_RDONLY | O_TRUNC) < 0 ? errno : 0;
    if (stat("a", &st) < 0 || st.st_size == 0)
        emptied = -1;
    close(in[1]);
    waitpid(pid, &status, 0);
    if (written == ETXTBSY && truncated == ETXTBSY && emptied == ETXTBSY && !status)
        return run_steps("open 1 a wronly,trunc; is a size 0");
    return run_differs("open %d, truncate %d, O_RDONLY|O_TRUNC %d, status %d", written, truncated,
                       emptied, status);
}

static bool
many_descriptors_of_one_file(void)
{
    int fd[64];
    char buf[8];

    for (size_t i = 0; i < LENGTH(fd); i++)
        if ((fd[i] = open("a", O_RDWR | O_CREAT | O_APPEND, 0644)) < 0 ||
            write(fd[i], "ab", 2) != 2)
            return run_differs("descriptor %zu: %m", i);
    for (size_t i = 0; i < LENGTH(fd); i++)
        if (pread(fd[i], buf, 2, (off_t)(2 * LENGTH(fd) - 2)) != 2 || close(fd[i]) < 0)
            return run_differs("descriptor %zu: %m", i);
    return run_steps("is a size 128");
}

static const struct {
    const char *name;
    bool (*run)(void);
} function_cases[] = {
    {"flock between processes", flock_between_processes},
    {"fcntl locks between processes", fcntl_between_processes},
    {"fcntl tells the holder of a lock", fcntl_tells_the_holder},
    {"open file description locks", ofd_locks_between_descriptors},
    {"a shared map and calls see each other", shared_map_and_calls_see_each_other},
    {"a shared map outlives close and unlink", shared_map_outlives_close_and_unlink},
    {"a shared map written after close is in the file",
     shared_map_written_after_close_is_in_the_file},
    {"a private map keeps its changes to itself", private_map_keeps_its_changes},
    {"60 files are listed, each once, as stat says", listing_is_whole},
    {"a map ends with the file", a_map_ends_with_the_file},
    {"a running program is not written", a_running_program_is_not_written},
    {"listing while names come and go", listing_while_names_come_and_go},
    {"seekdir comes back", seekdir_comes_back},
    {"two appenders lose nothing", two_appenders_lose_nothing},
    {"a descriptor shared by fork has one position", descriptor_shared_by_fork_has_one_position},
    {"writev and preadv", vectors},
    {"copy_file_range", copy_range},
    {"calls relative to a directory descriptor", directory_relative_calls},
    {"statvfs while files come and go", space_shows_in_statvfs},
    {"64 descriptors of one file", many_descriptors_of_one_file},
};

/* ---- over a remount ----------------------------------------------------------------------------
 */

static const struct {
    const char *name, *before, *after;
} kept[] = {
    {"mode", "create m1 0644; chmod m1 0604", "is m1 mode 0604"},
    {"set-uid, set-gid and sticky", "create m2 0644; chmod m2 07751", "is m2 mode 07751"},
    {"creation mode", "umask 0; create m3 0426", "is m3 mode 0426"},
    {"owner", "create o1 0644; chown o1 4000000000 65537", "is o1 uid 4000000000; is o1 gid 65537"},
    {"times to the nanosecond", "put t1 x; utimens t1 1234567890:123456789 987654321:987654321",
     "is t1 atime 1234567890:123456789; is t1 mtime 987654321:987654321; is t1 ctime recent"},
    {"times past 2^32", "create t2 0644; utimens t2 4294967297:1 8589934592:2",
     "is t2 atime 4294967297:1; is t2 mtime 8589934592:2"},
    {"times before 1970", "create t3 0644; utimens t3 -5:3 -6:4",
     "is t3 atime -5:3; is t3 mtime -6:4"},
    {"content", "put c1 hello", "has c1 hello; is c1 size 5"},
    {"content past a block", "put c2 x*4097", "has c2 x*4097"},
    {"content of a large file", "put c3 abc+x*60000+z", "has c3 abc+x*60000+z"},
    {"a hole", "open 1 c4 wronly,creat 0644; pwrite 1 9000 y; close 1", "has c4 .*9000+y"},
    {"an empty file", "create c5 0644", "has c5 ''; is c5 size 0"},
    {"what was replaced", "put c6 x*5000; put c6 y", "has c6 y"},
    {"what was truncated", "put c7 hello; truncate c7 2", "has c7 he"},
    {"what was grown", "put c8 hello; truncate c8 5000", "has c8 hello+.*4995"},
    {"an append", "put c9 hello; open 1 c9 wronly,append; write 1 x; close 1", "has c9 hellox"},
    {"a rename", "put r1 x; rename r1 r2", "has r2 x; is r1 size 0 =ENOENT"},
    {"a rename over", "put r3 new; put r4 old; rename r3 r4", "has r4 new; is r3 size 0 =ENOENT"},
    {"an exchange", "put r5 five; put r6 six; rename r5 r6 exchange", "has r5 six; has r6 five"},
    {"an unlink", "put u1 x; unlink u1", "is u1 size 0 =ENOENT"},
    {"the longest name", "put 255* x", "has 255* x"},
    {"a name of odd bytes", "put \x01\xff\xfe x", "has \x01\xff\xfe x"},
    {"mode after content", "put m4 x; chmod m4 0600; put m4 yy", "is m4 mode 0600; has m4 yy"},
    {"the directory's mode and owner", "chown . 7 8; chmod . 01750",
     "is . mode 01750; is . uid 7; is . gid 8"},
    {"the directory's times", "utimens . 5:5 6:6", "is . mtime 6:6; is . atime 5:5"},
    {"all of them and nothing else", "", "count 23"},
};

static void
run_kept(bool after)
{
    if (!after)
        run_reset();
    for (size_t i = 0; i < LENGTH(kept); i++) {
        umask(022);
        if (after || *kept[i].before)
            tell(run_steps(after ? kept[i].after : kept[i].before), after ? "kept" : "left",
                 kept[i].name);
    }
}

static void
run_all(void)
{
    all("chmod", chmod_cases, LENGTH(chmod_cases));
    all("chown", chown_cases, LENGTH(chown_cases));
    all("open", open_cases, LENGTH(open_cases));
    all("rename", rename_cases, LENGTH(rename_cases));
    all("truncate", truncate_cases, LENGTH(truncate_cases));
    all("unlink", unlink_cases, LENGTH(unlink_cases));
    all("utimens", utimens_cases, LENGTH(utimens_cases));
    all("data", data_cases, LENGTH(data_cases));
    if (!reference)
        all("own", own_cases, LENGTH(own_cases));
    permission_matrix();
    access_matrix();
    sticky_matrix();
    umask_matrix();
    for (size_t i = 0; i < LENGTH(function_cases); i++) {
        run_reset();
        tell(function_cases[i].run(), "calls", function_cases[i].name);
    }
    run_reset();
}

/* For scripts that look at the image between two system calls. */
static void
run_lines(void)
{
    char line[4096];

    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (run_steps(line))
            puts("ok");
        else
            printf("not ok %s\n", run_why());
        fflush(stdout);
    }
}

int
main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "-r")) {
        reference = true;
        argv++;
        argc--;
    }
    if (argc < 2 || geteuid() || chdir(argv[1]) < 0) {
        fprintf(stderr, "usage (as root): posix_cases [-r] DIR [before | after | steps]\n");
        return 2;
    }
    if (argc > 2 && !strcmp(argv[2], "steps")) {
        run_lines();
        return 0;
    }
    if (argc == 2)
        run_all();
    else
        run_kept(!strcmp(argv[2], "after"));
    printf("1..%d\n", count);
    return failures != 0;
}
