/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/domain.h"
#include "base/report.h"
#include "base/scope.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#define DOMAINS "/etc/libvirt/qemu"
#define STATE "/var/lib/libvirt/swtpm"
#define QEMU_CONF "/etc/libvirt/qemu.conf"

enum { FILE_LIMIT = 4 * 1024 * 1024 };

static int
read_text(char **text, const char *path)
{
    AUTO_FREE char *buf = malloc(FILE_LIMIT);
    FILE *in = fopen(path, "re");
    size_t n;

    if (!in)
        return -errno;
    n = buf ? fread(buf, 1, FILE_LIMIT - 1, in) : 0;
    fclose(in);
    if (!buf)
        return -ENOMEM;
    buf[n] = '\0';
    *text = steal(&buf);
    return 0;
}

/* ---- a domain ----------------------------------------------------------------------------------
 * Not a parser of XML: libvirt writes these files itself, always in one form, and nobody else may.
 */

/* What stands between @before and @after in @xml; NULL if nothing does. */
static char *
between(const char *xml, const char *before, const char *after)
{
    const char *from = xml ? strstr(xml, before) : NULL, *to;

    if (!from)
        return NULL;
    from += strlen(before);
    to = strstr(from, after);
    return to ? strndup(from, (size_t)(to - from)) : NULL;
}

/* libvirt writes a path with these five entities. */
static char *
unescape(char *s)
{
    static const struct {
        const char *entity;
        char c;
    } table[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&apos;", '\''}, {"&quot;", '"'}};
    char *to = s;

    for (const char *from = s; from && *from;) {
        size_t used = 1;
        char c = *from;

        for (size_t i = 0; *from == '&' && i < sizeof table / sizeof *table; i++)
            if (strncmp(from, table[i].entity, strlen(table[i].entity)) == 0) {
                c = table[i].c;
                used = strlen(table[i].entity);
            }
        *to++ = c;
        from += used;
    }
    if (to)
        *to = '\0';
    return s;
}

static int
take_tpm(struct domain *d, const char *xml)
{
    AUTO_FREE char *tpm = between(xml, "<tpm ", "</tpm>");
    AUTO_FREE char *source = between(tpm, "<source ", "/>");
    AUTO_FREE char *path = unescape(between(source, "path='", "'"));

    if (!tpm)
        return 0;
    if (strstr(tpm, "type='external'")) {
        d->has_tpm = path != NULL;
        d->socket = steal(&path);
        return 0;
    }
    d->has_tpm = strstr(tpm, "type='emulator'") != NULL;
    if (d->has_tpm && path && strstr(source, "type='dir'"))
        d->dir = steal(&path);
    else if (d->has_tpm && asprintf(&d->dir, STATE "/%s/%s", d->uuid,
                                    strstr(tpm, "version='1.2'") ? "tpm1.2" : "tpm2") < 0)
        return -ENOMEM;
    return 0;
}

static int
read_domain(struct domain *d, const char *path)
{
    AUTO_FREE char *xml = NULL;
    int r = read_text(&xml, path);

    if (r < 0)
        return r == -ENOENT ? r : report(r, "%s: %s", path, errno_text(r));
    d->name = unescape(between(xml, "<name>", "</name>"));
    d->uuid = between(xml, "<uuid>", "</uuid>");
    if (!d->name || !d->uuid)
        return report(-EIO, "%s: does not describe a domain", path);
    return take_tpm(d, xml);
}

static int
find_by_uuid(struct domain *d, const char *uuid)
{
    DIR *dir = opendir(DOMAINS);
    const struct dirent *e;
    int r = -ENOENT;

    while (dir && r == -ENOENT && (e = readdir(dir))) {
        size_t len = strlen(e->d_name);
        char path[PATH_MAX];

        if (len < 4 || strcmp(e->d_name + len - 4, ".xml") != 0)
            continue;
        snprintf(path, sizeof path, DOMAINS "/%s", e->d_name);
        r = read_domain(d, path);
        if (r < 0 || strcasecmp(d->uuid, uuid) == 0)
            break;
        domain_fini(d);
        r = -ENOENT;
    }
    if (dir)
        closedir(dir);
    return r;
}

int
domain_find(struct domain *d, const char *name)
{
    char path[PATH_MAX];
    int r;

    *d = (struct domain){0};
    if (strchr(name, '/') || snprintf(path, sizeof path, DOMAINS "/%s.xml", name) >= PATH_MAX)
        return -ENOENT;
    r = read_domain(d, path);
    if (r == -ENOENT)
        r = find_by_uuid(d, name);
    if (r < 0)
        domain_fini(d);
    return r;
}

void
domain_fini(struct domain *d)
{
    free(d->name);
    free(d->uuid);
    free(d->dir);
    free(d->socket);
    *d = (struct domain){0};
}

/* ---- qemu.conf ---------------------------------------------------------------------------------
 */

/* @line begins with "NAME = ". */
static const char *
value_of(const char *line, const char *name)
{
    size_t len = strlen(name);

    while (*line == ' ' || *line == '\t')
        line++;
    if (strncmp(line, name, len) != 0)
        return NULL;
    line += len + strspn(line + len, " \t");
    return *line == '=' ? line + 1 : NULL;
}

/* A list may go over lines; a string is one word in quotes. */
static char *
copy_value(const char *v)
{
    const char *end;

    while (isspace((unsigned char)*v))
        v++;
    if (*v == '"')
        return strndup(v + 1, strcspn(v + 1, "\"\n"));
    end = *v == '[' ? strchr(v, ']') : NULL;
    return strndup(v, end ? (size_t)(end - v) + 1 : strcspn(v, " \t\n"));
}

char *
domain_setting(const char *name)
{
    AUTO_FREE char *text = NULL;

    if (read_text(&text, QEMU_CONF) < 0)
        return NULL;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        const char *v;

        line += *line == '\n';
        v = value_of(line, name);
        if (v)
            return copy_value(v);
    }
    return NULL;
}

/* What it is set to, or the first of two users that exists: distributions differ. */
static char *
user_setting(const char *name, const char *first, const char *second)
{
    char *user = domain_setting(name);

    if (user && *user == '+')
        memmove(user, user + 1, strlen(user));
    return user ? user : strdup(getpwnam(first) ? first : second);
}

char *
domain_swtpm_user(void)
{
    return user_setting("swtpm_user", "tss", "root");
}

char *
domain_qemu_user(void)
{
    return user_setting("user", "libvirt-qemu", "qemu");
}
