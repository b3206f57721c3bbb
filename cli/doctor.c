/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram doctor: what usually goes wrong around a mount, looked for one by one, each with what to
 * do about it.  Nothing is changed.  A check either finds out, or is passed over with the reason.
 */
#include "base/finding.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/domain.h"
#include "cli/image.h"
#include "cli/mountstatus.h"
#include "cli/owner.h"
#include "cli/where.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <mntent.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>

enum verdict { FINE, WARNING, BAD, PASSED_OVER };

/* The most that the state of a TPM 2.0 can grow to; swtpm writes a new one beside the old one. */
enum { TPM_STATE_MAX = 180000, CLOCK_SLACK = 60 };

struct doctor {
    bool json, bad;
    struct json_object *checks;
    const char *check; /* the one that runs */

    struct domain domain;
    bool is_domain;
    char *dir; /* where the mount is or should be; NULL: an external TPM */
    struct mount_status mount;
    bool mounted;
    bool in_fstab;
    char *fstab_options;
    char *image, *key_file, *anchor; /* NULL: not known */
    char *user;                      /* who works on the mount, or on the socket */
    uid_t uid;
    gid_t gid;
    struct look look;
    const struct owner_options *self;
    int look_result; /* -EAGAIN: no image to look at */
};

/* ---- what it says ------------------------------------------------------------------------------
 */

static const char *const verdict_names[] = {"ok", "warning", "bad", "skipped"};

static void say(struct doctor *d, enum verdict v, const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void
say(struct doctor *d, enum verdict v, const char *advice, const char *fmt, ...)
{
    struct json_object *o;
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->bad |= v == BAD;
    if (!d->json) {
        printf("%-8s %-18s ", verdict_names[v], d->check);
        print_escaped(text);
        putchar('\n');
        if (advice)
            printf("         what to do:        %s\n", advice);
        return;
    }
    o = json_object_new_object();
    json_add_text(o, "check", d->check);
    json_add_text(o, "verdict", verdict_names[v]);
    json_add_text(o, "found", text);
    json_add_text(o, "what_to_do", advice);
    json_object_array_add(d->checks, o);
}

/* ---- with somebody else's rights ---------------------------------------------------------------
 */

typedef int as_user_fn(const char *path, int mode);

static int
look_up(const char *path, int mode)
{
    return faccessat(AT_FDCWD, path, mode, AT_EACCESS) == 0 ? 0 : errno;
}

/* Access of the user to @path: 0, an errno, or -1 when we cannot find out. */
static int
access_as_user(const struct doctor *d, const char *path, int mode)
{
    int status;
    pid_t pid;

    if (d->uid == geteuid())
        return look_up(path, mode);
    if (geteuid() != 0)
        return -1;
    pid = fork();
    if (pid == 0) {
        if (initgroups(d->user, d->gid) < 0 || setgid(d->gid) < 0 || setuid(d->uid) < 0)
            _exit(255);
        _exit(look_up(path, mode));
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) != 255 ? WEXITSTATUS(status) : -1;
}

/* ---- the mount ---------------------------------------------------------------------------------
 */

static const char *
health_advice(enum mount_health h)
{
    switch (h) {
    case MOUNT_DEAD:
        return "mount it again: that replaces the dead mount; the journal tells how its daemon "
               "ended";
    case MOUNT_SILENT:
        return "look whether its daemon is stopped or its disk hangs; \"vnvram unmount --force\" "
               "ends it";
    case MOUNT_READ_ONLY:
        return "the journal tells why; then unmount, \"vnvram check\" the image, and mount it "
               "again";
    case MOUNT_DEGRADED:
        return "restore the image from a backup, or \"vnvram check --salvage\" what is whole";
    case MOUNT_TPM_FAILED:
        return "the journal tells why its state could not be stored; then unmount and mount again";
    case MOUNT_DENIED:
        return "ask as root, or as the user who mounted it";
    default:
        return "unmount it and mount it again with this version of vnvram";
    }
}

static void
check_mount(struct doctor *d)
{
    struct stat st;

    if (d->mounted && d->mount.health == MOUNT_OK) {
        say(d, FINE, NULL, "%s is mounted on %s", d->image, d->dir);
    } else if (d->mounted) {
        say(d, BAD, health_advice(d->mount.health), "the mount on %s is %s", d->dir,
            mount_health_name(d->mount.health));
    } else if (stat(d->dir, &st) < 0) {
        say(d, BAD, "make the directory, and mount an image on it", "%s: %s", d->dir,
            errno_text(errno));
    } else {
        say(d, BAD,
            d->in_fstab ? "\"mount DIRECTORY\": there is a line for it in /etc/fstab"
                        : "\"vnvram mount IMAGE DIRECTORY\", before anybody writes there",
            "nothing of vnvram's is mounted on %s", d->dir);
    }
}

/* A state that was written because the mount was not there is a second identity of the machine. */
static const char *
first_file(const char *dir, char *name, size_t size)
{
    DIR *list = opendir(dir);
    const struct dirent *e;

    *name = '\0';
    while (list && !*name && (e = readdir(list)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            snprintf(name, size, "%s", e->d_name);
    if (list)
        closedir(list);
    return *name ? name : NULL;
}

static bool
is_unwritable(const char *dir)
{
    AUTO_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct statvfs sv;
    int flags = 0;

    if (fd < 0)
        return false;
    return (fstatvfs(fd, &sv) == 0 && (sv.f_flag & ST_RDONLY)) ||
           (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_IMMUTABLE_FL));
}

static void
check_bare(struct doctor *d)
{
    char name[NAME_MAX_LEN + 1];

    if (d->mounted) {
        say(d, PASSED_OVER, NULL, "the directory beneath a mount cannot be seen");
    } else if (first_file(d->dir, name, sizeof name)) {
        say(d, BAD,
            "it was written without the mount: find out which one is right, import it, and "
            "empty the directory",
            "%s holds %s although nothing is mounted there", d->dir, name);
    } else if (is_unwritable(d->dir)) {
        say(d, FINE, NULL, "%s is read-only without its mount", d->dir);
    } else if (!d->is_domain && access_as_user(d, d->dir, W_OK) != 0) {
        say(d, FINE, NULL, "%s cannot write to %s without its mount", d->user, d->dir);
    } else {
        say(d, BAD, "\"chattr +i DIRECTORY\" while nothing is mounted there",
            "%s can be written to without its mount: %s would make a new TPM there", d->dir,
            d->is_domain ? "libvirt" : d->user);
    }
}

/* Each directory on the way. */
static void
check_path(struct doctor *d)
{
    const char *path = d->dir ? d->dir : d->domain.socket;
    AUTO_FREE char *part = strdup(path);
    int r = 0;

    for (char *slash = part; part && r == 0 && (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        r = access_as_user(d, part, X_OK);
        if (r != 0)
            break;
        *slash = '/';
    }
    if (r == 0)
        say(d, FINE, NULL, "%s gets as far as %s", d->user, path);
    else if (r < 0)
        say(d, PASSED_OVER, NULL, "only root can tell whether %s gets as far as %s", d->user, path);
    else
        say(d, BAD, "\"chmod o+x\" or \"setfacl -m u:USER:x\" that directory",
            "%s cannot get past %s: %s", d->user, part, errno_text(r));
}

static bool
fuse_conf_allows(void)
{
    FILE *in = fopen("/etc/fuse.conf", "re");
    bool found = false;
    char line[256];

    while (in && !found && fgets(line, sizeof line, in))
        found = strcspn(line, " \t\n") == strlen("user_allow_other") &&
                strncmp(line, "user_allow_other", strlen("user_allow_other")) == 0;
    if (in)
        fclose(in);
    return found;
}

static bool
has_option(const char *options, const char *name)
{
    struct mntent m = {.mnt_opts = (char *)options};

    return options && hasmntopt(&m, name);
}

static void
check_allow_other(struct doctor *d)
{
    uid_t mounter = d->mounted ? d->mount.mount.user : 0;
    bool allowed =
        d->mounted ? d->mount.mount.allow_other : has_option(d->fstab_options, "allow_other");

    if (!d->mounted && !d->in_fstab)
        say(d, PASSED_OVER, NULL, "nothing is mounted, and /etc/fstab has no line for it");
    else if (allowed || mounter == d->uid)
        say(d, FINE, NULL, "%s may enter", d->user);
    else if (mounter == 0 || fuse_conf_allows())
        say(d, BAD, "mount it with -o allow_other", "only user %u may enter, not %s", mounter,
            d->user);
    else
        say(d, BAD,
            "add the line \"user_allow_other\" to /etc/fuse.conf, and mount it with -o "
            "allow_other",
            "only user %u may enter, not %s", mounter, d->user);
}

static void
check_owner(struct doctor *d)
{
    struct statvfs sv;
    struct stat st;
    int r;

    if (!d->mounted || d->mount.health > MOUNT_TPM_FAILED || stat(d->dir, &st) < 0) {
        say(d, PASSED_OVER, NULL, "there is no mount to look at");
        return;
    }
    r = access_as_user(d, d->dir, R_OK | W_OK | X_OK);
    if (r == 0)
        say(d, FINE, NULL, "%s may write to %s", d->user, d->dir);
    else if (r < 0)
        say(d, PASSED_OVER, NULL, "only root can tell what %s may do", d->user);
    else if (statvfs(d->dir, &sv) == 0 && (sv.f_flag & ST_RDONLY))
        say(d, PASSED_OVER, NULL, "the mount is read-only");
    else if (d->is_domain && !has_option(d->fstab_options, "uid"))
        say(d, FINE, NULL, "user %u owns it: libvirt gives it to %s when the domain starts",
            st.st_uid, d->user);
    else
        say(d, BAD, "\"chown USER DIRECTORY\" while it is mounted: the image keeps that",
            "%s may not write to %s, which user %u owns with mode %03o", d->user, d->dir, st.st_uid,
            st.st_mode & 0777);
}

/* ---- the image ---------------------------------------------------------------------------------
 */

static void
check_image(struct doctor *d)
{
    struct stat st;

    if (!d->image)
        say(d, PASSED_OVER, NULL, "it is not known which image belongs there");
    else if (d->look_result == -EAGAIN)
        say(d, PASSED_OVER, NULL, "%s is what user %u says it is", d->image, d->mount.mount.user);
    else if (!dev_is_path(d->image) && d->look_result < 0)
        say(d, BAD, "look whether its server runs; \"vnvram check IMAGE\" tells more", "%s: %s",
            d->image, finding_name(d->look_result));
    else if (!dev_is_path(d->image))
        say(d, FINE, NULL, "%s can be read", d->image);
    else if (stat(d->image, &st) < 0)
        say(d, BAD, "find it, or restore it from a backup", "%s: %s", d->image, errno_text(errno));
    else if (st.st_mode & 0022)
        say(d, BAD, "\"chmod 600 IMAGE\"", "others than its owner can write to %s", d->image);
    else if (d->look_result == -EACCES)
        say(d, PASSED_OVER, NULL, "%s cannot be read by us", d->image);
    else if (d->look_result < 0)
        say(d, BAD, "\"vnvram check IMAGE\" tells more", "%s: %s", d->image,
            finding_name(d->look_result));
    else
        say(d, FINE, NULL, "%s can be read", d->image);
}

/* Which host has it: of those that share the device the image is on. */
static void
check_host(struct doctor *d)
{
    const struct look *l = &d->look;
    char text[OWNER_TEXT];

    if (d->look_result < 0)
        say(d, PASSED_OVER, NULL, "the image cannot be looked at");
    else if (l->owner_r == -ENODATA)
        say(d, FINE, NULL, "the image is not shared among hosts, or was never mounted");
    else if (l->owner_r < 0)
        say(d, BAD, "make sure that no other host has it mounted, then mount it with -o takeover",
            "the image's owner records are damaged");
    else if (l->owner.state != OWNER_RELEASED &&
             memcmp(l->owner.host_id, d->self->host_id, HOST_ID_SIZE) != 0)
        say(d, WARNING,
            "unmount it there; if that host is certainly dead, mount it with -o takeover",
            "the image is owned by %s", owner_text(text, 0, &l->owner));
    else
        say(d, FINE, NULL, "no other host owns the image");
}

static bool
slot_is_taken(const struct look *l, uint32_t slot)
{
    for (size_t i = 0; i < l->n_entries; i++)
        if (l->entries[i].slot == slot || l->entries[i].reserve_slot == slot)
            return true;
    return false;
}

/* swtpm writes TMP2-00.permall and renames it: one slot for the state, and one for the next. */
static void
check_slots(struct doctor *d)
{
    unsigned room = 0;

    if (d->look_result < 0) {
        say(d, PASSED_OVER, NULL, "the image cannot be looked at");
        return;
    }
    for (uint32_t i = 0; i < d->look.info.slots_total; i++)
        room += superblock_slot_capacity(&d->look.sb, i) >= TPM_STATE_MAX &&
                !slot_is_taken(&d->look, i);
    for (size_t i = 0; i < d->look.n_entries; i++) {
        const struct entry *e = &d->look.entries[i];

        room += strcmp(e->name, "tpm2-00.permall") == 0 && e->kind == ENTRY_FILE &&
                superblock_slot_capacity(&d->look.sb, e->slot) >= TPM_STATE_MAX;
    }
    if (room >= 2)
        say(d, FINE, NULL, "there is room for the state of a TPM and for the next one beside it");
    else
        say(d, BAD, "remove what is not needed, or \"vnvram grow\" the image",
            "%u slot%s of %d bytes for the state of a TPM: two are needed, for swtpm writes the "
            "next one beside the last",
            room, room == 1 ? "" : "s", TPM_STATE_MAX);
}

/* Of the daemon: whether it may lease a file that is not its own. */
static bool
daemon_has_cap_lease(pid_t pid)
{
    unsigned long long caps = 0;
    char path[64], line[256];
    FILE *in;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    in = fopen(path, "re");
    while (in && fgets(line, sizeof line, in))
        if (sscanf(line, "CapEff: %llx", &caps) == 1)
            break;
    if (in)
        fclose(in);
    return caps >> CAP_LEASE & 1;
}

static int
try_lease(const char *path)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    int r;

    if (fd < 0)
        return errno == EWOULDBLOCK ? 0 : -errno; /* the daemon has one at this moment */
    r = fcntl(fd, F_SETLEASE, F_RDLCK) < 0 ? -errno : 0;
    if (r == 0)
        fcntl(fd, F_SETLEASE, F_UNLCK);
    return r == -EAGAIN || r == -EACCES ? 0 : r; /* open for writing; not ours */
}

static void
check_lease(struct doctor *d)
{
    static const char advice[] = "copy it by \"vnvram snapshot\" or .vnvram/image only";
    struct stat st;
    int r;

    if (d->image && !dev_is_path(d->image)) {
        say(d, WARNING, advice, "an NBD export has no leases: a plain copy of it may be torn");
        return;
    }
    if (!d->image || stat(d->image, &st) < 0) {
        say(d, PASSED_OVER, NULL, "there is no image to look at");
        return;
    }
    r = S_ISREG(st.st_mode) ? try_lease(d->image) : -ENOTBLK;
    if (r == -ENOTBLK)
        say(d, WARNING, advice, "a block device has no leases: a plain copy of it may be torn");
    else if (r == -EACCES || r == -EPERM)
        say(d, PASSED_OVER, NULL, "%s cannot be read by us", d->image);
    else if (r < 0)
        say(d, WARNING, advice,
            "the file system of %s has no leases (%s): a plain copy may be torn", d->image,
            errno_text(r));
    else if (d->mounted && d->mount.mount.user != st.st_uid &&
             !daemon_has_cap_lease((pid_t)mount_status_number(&d->mount, "pid")))
        say(d, WARNING,
            "give the image to the user who mounts it, or copy it by \"vnvram snapshot\"",
            "the daemon runs as user %u, %s is user %u's, and CAP_LEASE is missing: a plain copy "
            "may be torn",
            d->mount.mount.user, d->image, st.st_uid);
    else
        say(d, FINE, NULL, "a plain copy of %s is whole or refused", d->image);
}

static void
check_key(struct doctor *d)
{
    struct stat st;

    if (!d->key_file)
        say(d, PASSED_OVER, NULL, "no key file is known; -o key_file tells it");
    else if (stat(d->key_file, &st) < 0)
        say(d, BAD, "find it, or use another key of the image (\"vnvram key list\")", "%s: %s",
            d->key_file, errno_text(errno));
    else if (!S_ISREG(st.st_mode))
        say(d, BAD, "name the file that holds the key", "%s is not a regular file", d->key_file);
    else if (st.st_mode & 0077)
        say(d, BAD, "\"chmod 600 FILE\", and think about a new key (\"vnvram key\")",
            "others can get at %s: its mode is %03o", d->key_file, st.st_mode & 0777);
    else if (st.st_uid != 0 && st.st_uid != geteuid())
        say(d, BAD, "\"chown root FILE\"", "%s is user %u's", d->key_file, st.st_uid);
    else
        say(d, FINE, NULL, "%s is nobody else's", d->key_file);
}

static void
check_anchor(struct doctor *d)
{
    struct stat anchor, image;

    if (!d->anchor)
        say(d, FINE, NULL, "none: an older state of the image would not be noticed");
    else if (stat(d->anchor, &anchor) < 0)
        say(d, BAD, "find it; without it the image is not mounted (see accept_rollback)", "%s: %s",
            d->anchor, errno_text(errno));
    else if (d->image && stat(d->image, &image) == 0 && image.st_dev == anchor.st_dev)
        say(d, WARNING, "move it to where a backup of the image does not reach",
            "%s is on the file system of its image: both can be put back together", d->anchor);
    else
        say(d, FINE, NULL, "%s is there", d->anchor);
}

/* ---- the host ----------------------------------------------------------------------------------
 */

static void
check_fuse(struct doctor *d)
{
    struct stat st;

    if (stat("/dev/fuse", &st) == 0 && S_ISCHR(st.st_mode))
        say(d, FINE, NULL, "/dev/fuse is there");
    else
        say(d, BAD, "\"modprobe fuse\"; in a container, let it have the device",
            "/dev/fuse is not there: nothing can be mounted");
}

static void
check_sandbox(struct doctor *d)
{
    struct json_object *v;

    if (d->mounted && json_object_object_get_ex(d->mount.answer, "sandbox", &v) &&
        !json_object_get_boolean(v))
        say(d, WARNING, "mount it without sandbox=off",
            "the daemon and its TPM run without sandbox");
    else if (prctl(PR_GET_SECCOMP) < 0)
        say(d, WARNING, "use a kernel with CONFIG_SECCOMP_FILTER", "this kernel has no seccomp");
    else if (sandbox_landlock_version() == 0)
        say(d, WARNING, "boot with Landlock among the lsm= of the kernel",
            "this kernel has no Landlock: the sandbox has one layer less");
    else
        say(d, FINE, NULL, "the sandbox has all its layers");
}

static void
check_clock(struct doctor *d)
{
    int64_t behind = d->look_result < 0 ? 0 : d->look.info.committed - (int64_t)time(NULL);

    if (d->look_result < 0)
        say(d, PASSED_OVER, NULL, "the image cannot be looked at");
    else if (behind > CLOCK_SLACK)
        say(d, BAD, "set the clock, before mounting: certificates and times depend on it",
            "the clock is %lld seconds behind the image's last commit", (long long)behind);
    else
        say(d, FINE, NULL, "the image's last commit is not in the future");
}

/* ---- libvirt -----------------------------------------------------------------------------------
 */

static bool
somebody_listens(const char *path)
{
    FILE *in = fopen("/proc/net/unix", "re");
    bool found = false;
    char line[512];

    while (in && !found && fgets(line, sizeof line, in)) {
        const char *name = strchr(line, '/');
        unsigned flags = 0;

        line[strcspn(line, "\n")] = '\0';
        found = name && strcmp(name, path) == 0 && sscanf(line, "%*s %*s %*s %x", &flags) == 1 &&
                (flags & 0x10000) != 0;
    }
    if (in)
        fclose(in);
    return found;
}

/* Nobody connects to it here: the TPM has one client, and may end with it. */
static void
check_socket(struct doctor *d)
{
    const char *path = d->domain.socket;
    struct stat st;
    int r;

    if (stat(path, &st) < 0 || !S_ISSOCK(st.st_mode) || !somebody_listens(path)) {
        say(d, BAD,
            "\"vnvram mount -o tpm=2.0,ctrl=PATH,ctrl_uid=USER IMAGE DIRECTORY\" before the "
            "domain starts",
            "nobody listens on %s", path);
        return;
    }
    r = access_as_user(d, path, W_OK);
    if (r > 0)
        say(d, BAD, "mount with -o ctrl_uid=USER", "%s may not use %s", d->user, path);
    else
        say(d, FINE, NULL, "a TPM listens on %s", path);
}

static void
check_shared(struct doctor *d)
{
    AUTO_FREE char *list = domain_setting("shared_filesystems");
    AUTO_FREE char *parent = strdup(d->dir);
    bool found = false;

    for (char *slash; list && parent && !found && (slash = strrchr(parent, '/'));) {
        found = *parent && strstr(list, parent);
        *slash = '\0';
    }
    if (found)
        say(d, FINE, NULL, "shared_filesystems covers it");
    else
        say(d, WARNING,
            "where hosts share the image, add the directory to shared_filesystems in "
            "/etc/libvirt/qemu.conf (where it knows that setting)",
            "libvirt takes the mount for a local one: a migration copies the TPM's state");
}

/* ---- what is known beforehand ------------------------------------------------------------------
 */

/* "NAME=VALUE" among comma-separated options. */
static char *
option_value(const char *options, const char *name)
{
    const char *found = options ? strstr(options, name) : NULL;

    while (found && found != options && found[-1] != ',')
        found = strstr(found + 1, name);
    return found ? strndup(found + strlen(name), strcspn(found + strlen(name), ",")) : NULL;
}

static void
read_fstab(struct doctor *d)
{
    FILE *in = setmntent("/etc/fstab", "re");
    const struct mntent *m;

    while (in && (m = getmntent(in))) {
        if (strcmp(m->mnt_type, "vnvram") != 0 || strcmp(m->mnt_dir, d->dir) != 0)
            continue;
        d->in_fstab = true;
        d->fstab_options = strdup(m->mnt_opts);
        d->image = strdup(m->mnt_fsname);
        d->key_file = option_value(m->mnt_opts, "key_file=");
        d->anchor = option_value(m->mnt_opts, "anchor=");
        break;
    }
    if (in)
        endmntent(in);
}

static void
replace(char **field, const char *with)
{
    if (!with)
        return;
    free(*field);
    *field = strdup(with);
}

static void
find_mount(struct doctor *d)
{
    read_fstab(d);
    d->mounted = mount_status_one(&d->mount, d->dir) == 0;
    if (!d->mounted)
        return;
    replace(&d->image, d->mount.mount.source);
    replace(&d->anchor, mount_status_text(&d->mount, "anchor"));
}

/* What is mounted where is the word of whoever mounted it: nobody shall send root to a file, or to
 * a server, that is not theirs. */
static bool
may_be_looked_at(const struct doctor *d)
{
    struct stat st;

    if (!d->image)
        return false;
    if (!d->mounted || d->mount.mount.user == geteuid())
        return true;
    return dev_is_path(d->image) && stat(d->image, &st) == 0 &&
           (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) && st.st_uid == d->mount.mount.user;
}

/* Without its key: names and sizes stand in the clear. */
static void
look_at_image(struct doctor *d)
{
    struct options none = {.key = {.fd = -1}, .dev = {.reconnect_s = 1}};

    d->look_result = -EAGAIN;
    if (!may_be_looked_at(d))
        return;
    d->look_result = image_look(&d->look, d->image, &none);
}

static int
choose_user(struct doctor *d, const char *asked)
{
    const struct passwd *pw;

    if (asked)
        d->user = strdup(asked);
    else if (d->is_domain)
        d->user = d->dir ? domain_swtpm_user() : domain_qemu_user();
    else
        d->user = (pw = getpwuid(geteuid())) ? strdup(pw->pw_name) : NULL;
    pw = d->user ? getpwnam(d->user) : NULL;
    if (!pw && d->user && *d->user >= '0' && *d->user <= '9')
        pw = getpwuid((uid_t)strtoul(d->user, NULL, 10));
    if (!pw)
        return report(-EINVAL, "there is no user %s; --user names another one",
                      d->user ? d->user : "of ours");
    d->uid = pw->pw_uid;
    d->gid = pw->pw_gid;
    return 0;
}

/* A directory, or else a domain of libvirt's. */
static int
find_patient(struct doctor *d, const char *what)
{
    AUTO_FREE char *image = NULL;
    struct stat st;
    int r;

    d->dir = where_of_image(what);
    if (!d->dir)
        d->dir = mountinfo_realpath(what);
    image = d->dir ? where_image_of(d->dir) : NULL;
    if (image || (d->dir && (stat(d->dir, &st) < 0 || S_ISDIR(st.st_mode))))
        return 0;
    if (d->dir)
        return report(-EIO,
                      "%s: is mounted nowhere, and is no directory; what to do: name the one "
                      "where it is to be mounted",
                      what);
    if (strchr(what, '/')) {
        d->dir = strdup(what); /* a check will say that it is not there */
        return d->dir ? 0 : report(-ENOMEM, "out of memory");
    }
    r = domain_find(&d->domain, what);
    if (r == -ENOENT)
        return report(-EIO, "%s: neither a directory nor a domain of libvirt's", what);
    if (r == 0 && !d->domain.has_tpm)
        return report(-EIO, "%s: this domain has no TPM", what);
    d->is_domain = true;
    d->dir = r == 0 && d->domain.dir ? strdup(d->domain.dir) : NULL;
    return r;
}

/* ---- the command -------------------------------------------------------------------------------
 */

enum { OF_MOUNT = 1, OF_SOCKET = 2, OF_DOMAIN = 4 }; /* which patients a check is for */

static const struct {
    const char *name;
    int of;
    void (*run)(struct doctor *d);
} checks[] = {
    {"fuse", OF_MOUNT, check_fuse},
    {"mount", OF_MOUNT, check_mount},
    {"bare-directory", OF_MOUNT, check_bare},
    {"path", OF_MOUNT | OF_SOCKET, check_path},
    {"allow_other", OF_MOUNT, check_allow_other},
    {"owner", OF_MOUNT, check_owner},
    {"socket", OF_SOCKET, check_socket},
    {"image", OF_MOUNT, check_image},
    {"host", OF_MOUNT, check_host},
    {"slots", OF_MOUNT, check_slots},
    {"lease", OF_MOUNT, check_lease},
    {"key-file", OF_MOUNT, check_key},
    {"anchor", OF_MOUNT, check_anchor},
    {"sandbox", OF_MOUNT, check_sandbox},
    {"clock", OF_MOUNT, check_clock},
    {"shared-filesystems", OF_DOMAIN, check_shared},
};

static void
doctor_fini(struct doctor *d)
{
    domain_fini(&d->domain);
    mount_status_fini(&d->mount);
    image_look_fini(&d->look);
    free(d->dir);
    free(d->fstab_options);
    free(d->image);
    free(d->key_file);
    free(d->anchor);
    free(d->user);
}

static void
run_checks(struct doctor *d)
{
    int of = d->dir ? OF_MOUNT : OF_SOCKET;

    of |= d->is_domain && d->dir ? OF_DOMAIN : 0;
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        d->check = checks[i].name;
        if (checks[i].of & of)
            checks[i].run(d);
    }
}

static void
print_json(struct doctor *d)
{
    struct json_object *o = json_object_new_object();

    json_add_text(o, "directory", d->dir);
    json_add_text(o, "domain", d->domain.name);
    json_add_text(o, "user", d->user);
    json_object_object_add(o, "ok", json_object_new_boolean(!d->bad));
    json_object_object_add(o, "checks", d->checks);
    puts(json_object_to_json_string_ext(o,
                                        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(o);
}

int
cmd_doctor(struct options *o)
{
    AUTO(doctor_fini)
    struct doctor d = {.json = o->json, .look_result = -EAGAIN};
    int r = find_patient(&d, o->args[0]);

    if (r == 0)
        r = choose_user(&d, o->user);
    if (r < 0)
        return finding_exit_code(r);
    if (d.dir) {
        find_mount(&d);
        look_at_image(&d);
    }
    replace(&d.key_file, o->key.file);
    d.self = owner_from_options(o, d.image ? d.image : "");
    d.checks = o->json ? json_object_new_array() : NULL;
    run_checks(&d);
    if (o->json)
        print_json(&d);
    return d.bad ? EXIT_FAILED : EXIT_DONE;
}
