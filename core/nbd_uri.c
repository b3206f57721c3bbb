/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/nbd_uri.h"
#include "base/report.h"
#include "base/scope.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

static const struct scheme {
    const char *name;
    bool tls, is_unix;
} schemes[] = {
    {"nbd", false, false},
    {"nbds", true, false},
    {"nbd+unix", false, true},
    {"nbds+unix", true, true},
};

enum { N_SCHEMES = sizeof schemes / sizeof schemes[0], EXPORT_MAX = 4096 };

/* The scheme that @text starts with; *@rest is what follows "://". */
static const struct scheme *
find_scheme(const char *text, const char **rest)
{
    for (size_t i = 0; i < N_SCHEMES; i++) {
        size_t n = strlen(schemes[i].name);

        if (strncasecmp(text, schemes[i].name, n) == 0 && strncmp(text + n, "://", 3) == 0) {
            *rest = text + n + 3;
            return &schemes[i];
        }
    }
    return NULL;
}

bool
nbd_uri_is_one(const char *name)
{
    const char *end = strstr(name, "://");

    if (!end || strncasecmp(name, "nbd", 3) != 0)
        return false;
    for (const char *p = name; p < end; p++)
        if (!isalpha((unsigned char)*p) && *p != '+')
            return false;
    return true;
}

/* ---- parts ------------------------------------------------------------------------------------
 */

static int
bad(const char *text, const char *why)
{
    return report(-EINVAL, "%s: not an NBD URI: %s", text, why);
}

/* @n bytes with each %XX undone: 0, -EINVAL (malformed, or a NUL), -ENOMEM. */
static int
decode(char **out, const char *from, size_t n)
{
    AUTO_FREE char *s = malloc(n + 1);
    size_t len = 0;

    if (!s)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        unsigned c = (unsigned char)from[i];

        if (c == '%') {
            char hex[3] = {0};

            if (n - i < 3 || !isxdigit((unsigned char)from[i + 1]) ||
                !isxdigit((unsigned char)from[i + 2]))
                return -EINVAL;
            memcpy(hex, from + i + 1, 2);
            c = (unsigned)strtoul(hex, NULL, 16);
            i += 2;
        }
        if (c == 0)
            return -EINVAL;
        s[len++] = (char)c;
    }
    s[len] = '\0';
    free(*out);
    *out = steal(&s);
    return 0;
}

static int
make_absolute(char **path)
{
    AUTO_FREE char *cwd = NULL;
    char *joined;

    if ((*path)[0] == '/')
        return 0;
    cwd = getcwd(NULL, 0);
    if (!cwd || asprintf(&joined, "%s/%s", strcmp(cwd, "/") ? cwd : "", *path) < 0)
        return -ENOMEM;
    free(*path);
    *path = joined;
    return 0;
}

/* [USER@]HOST[:PORT], HOST maybe an IPv6 address in brackets, with a zone as RFC 6874 has it. */
static int
parse_authority(struct nbd_uri *u, const char *from, size_t n)
{
    const char *at = memchr(from, '@', n), *end = from + n, *colon;
    int r = 0;

    if (at) {
        r = decode(&u->user, from, (size_t)(at - from));
        from = at + 1;
    }
    if (r == 0 && from < end && *from == '[') {
        const char *close = memchr(from, ']', (size_t)(end - from));

        if (!close || (close + 1 < end && close[1] != ':'))
            return -EINVAL;
        r = decode(&u->host, from + 1, (size_t)(close - from - 1));
        colon = close + 1 < end ? close + 1 : NULL;
    } else if (r == 0) {
        colon = memchr(from, ':', (size_t)(end - from));
        r = decode(&u->host, from, (size_t)((colon ? colon : end) - from));
    }
    if (r == 0 && colon)
        r = decode(&u->port, colon + 1, (size_t)(end - colon - 1));
    return r;
}

static int
parse_parameter(struct nbd_uri *u, const char *text, const char *from, size_t n)
{
    static const char *const names[] = {"socket", "tls-psk-file", "tls-certificates"};
    char **const fields[] = {&u->socket, &u->psk_file, &u->certificates};
    const char *equals = memchr(from, '=', n);
    size_t len = equals ? (size_t)(equals - from) : n;

    for (size_t i = 0; i < 3; i++) {
        int r;

        if (strlen(names[i]) != len || memcmp(names[i], from, len) != 0)
            continue;
        if (!equals || len + 1 == n || *fields[i])
            return bad(text, "a parameter without a value, or given twice");
        r = decode(fields[i], equals + 1, n - len - 1);
        if (r == -EINVAL)
            return bad(text, "a parameter's value is not well-formed");
        return r < 0 ? r : make_absolute(fields[i]);
    }
    return report(-EINVAL, "%s: not an NBD URI: the parameter \"%.*s\" is not known", text,
                  (int)len, from);
}

/* ---- the whole --------------------------------------------------------------------------------
 */

static int
check(const struct nbd_uri *u, const struct scheme *scheme, const char *text)
{
    if (scheme->is_unix && !u->socket)
        return bad(text, "where is the socket?  socket=PATH says so");
    if (scheme->is_unix && (*u->host || u->port))
        return bad(text, "a Unix domain socket is on no other host");
    if (u->socket && strlen(u->socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return bad(text, "the socket's path is too long");
    if (!scheme->is_unix && u->socket)
        return bad(text, "socket= goes with nbd+unix:// and nbds+unix://");
    if (!scheme->is_unix && !*u->host)
        return bad(text, "the host is missing");
    if (u->port && (strspn(u->port, "0123456789") != strlen(u->port) || strlen(u->port) > 5 ||
                    atoi(u->port) < 1 || atoi(u->port) > 65535))
        return bad(text, "such a port there is not");
    if (strlen(u->export) > EXPORT_MAX)
        return bad(text, "the export's name is too long");
    if (!u->tls && (u->user || u->psk_file || u->certificates))
        return bad(text, "users, keys and certificates go with nbds");
    if (u->tls && !u->psk_file == !u->certificates)
        return bad(text, "nbds needs tls-psk-file=PATH or tls-certificates=DIRECTORY");
    if (u->certificates && (scheme->is_unix || strchr(u->host, '%')))
        return bad(text, "certificates prove hosts: here it takes tls-psk-file=PATH");
    return 0;
}

static int
parse(struct nbd_uri *u, const char *text)
{
    const char *p, *path, *query, *fragment;
    const struct scheme *scheme = find_scheme(text, &p);
    int r;

    if (!scheme)
        return bad(text, "it starts with nbd://, nbds://, nbd+unix:// or nbds+unix://");
    u->tls = scheme->tls;
    fragment = p + strcspn(p, "#");
    if (*fragment)
        return bad(text, "a '#' has no meaning here");
    query = p + strcspn(p, "?");
    path = p + strcspn(p, "/?");
    r = parse_authority(u, p, (size_t)(path - p));
    if (r == -EINVAL && memchr(p, '[', (size_t)(path - p)))
        return bad(text, "in brackets stands an IPv6 address; a zone's name follows a %25");
    if (r == 0)
        r = *path == '/' ? decode(&u->export, path + 1, (size_t)(query - path - 1))
                         : decode(&u->export, "", 0);
    if (r < 0)
        return r == -EINVAL ? bad(text, "it is not well-formed") : r;
    for (p = query; *p && p[1];) {
        size_t n = strcspn(p + 1, "&;");

        r = parse_parameter(u, text, p + 1, n);
        if (r < 0)
            return r;
        p += n + 1;
    }
    if (!scheme->is_unix && !u->port) {
        u->port = strdup("10809");
        if (!u->port)
            return -ENOMEM;
    }
    return check(u, scheme, text);
}

int
nbd_uri_parse(struct nbd_uri *u, const char *text)
{
    int r;

    *u = (struct nbd_uri){0};
    r = parse(u, text);
    if (r < 0)
        nbd_uri_fini(u);
    return r;
}

void
nbd_uri_fini(struct nbd_uri *u)
{
    free(u->socket);
    free(u->host);
    free(u->port);
    free(u->export);
    free(u->user);
    free(u->psk_file);
    free(u->certificates);
    *u = (struct nbd_uri){0};
}

/* What stands for itself in any part of a URI stays, and so does what is @also fine in this one. */
static void
put_encoded(FILE *out, const char *s, const char *also)
{
    for (; *s; s++) {
        if (isalnum((unsigned char)*s) || strchr("-._~", *s) || strchr(also, *s))
            fputc(*s, out);
        else
            fprintf(out, "%%%02X", (unsigned char)*s);
    }
}

static void
put_parameter(FILE *out, bool *any, const char *name, const char *value)
{
    if (!value)
        return;
    fprintf(out, "%c%s=", *any ? '&' : '?', name);
    put_encoded(out, value, "/");
    *any = true;
}

char *
nbd_uri_text(const struct nbd_uri *u)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    bool any = false;

    if (!out)
        return NULL;
    fprintf(out, "nbd%s%s://", u->tls ? "s" : "", u->socket ? "+unix" : "");
    if (u->user) {
        put_encoded(out, u->user, "");
        fputc('@', out);
    }
    if (!u->socket) {
        bool address = strchr(u->host, ':');

        fputs(address ? "[" : "", out);
        put_encoded(out, u->host, address ? ":" : "");
        fprintf(out, "%s:%s", address ? "]" : "", u->port);
    }
    fputc('/', out);
    put_encoded(out, u->export, "/");
    put_parameter(out, &any, "socket", u->socket);
    put_parameter(out, &any, "tls-psk-file", u->psk_file);
    put_parameter(out, &any, "tls-certificates", u->certificates);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* Of the names of a host those that need nobody to be asked: a look-up may say otherwise tomorrow.
 * A zone is an interface's name, or its number. */
static void
put_host(FILE *out, const char *text)
{
    static const char *const here[] = {"localhost", "localhost.", "127.0.0.1", "::1"};
    const char *zone = strchr(text, '%');
    AUTO_FREE char *name = strndup(text, zone ? (size_t)(zone - text) : strlen(text));
    const char *host = name ? name : text;
    char address[INET6_ADDRSTRLEN];
    struct in6_addr a;

    if (inet_pton(AF_INET6, host, &a) == 1 && inet_ntop(AF_INET6, &a, address, sizeof address))
        host = address;
    for (size_t i = 0; i < sizeof here / sizeof here[0]; i++)
        if (strcasecmp(host, here[i]) == 0)
            host = here[0];
    for (; *host; host++)
        fputc(tolower((unsigned char)*host), out);
    if (zone && if_nametoindex(zone + 1))
        fprintf(out, "%%%u", if_nametoindex(zone + 1));
    else if (zone)
        fputs(zone, out);
}

char *
nbd_uri_place(const struct nbd_uri *u)
{
    AUTO_FREE char *real = u->socket ? realpath(u->socket, NULL) : NULL;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    if (u->socket) {
        put_encoded(out, real ? real : u->socket, "/");
    } else {
        put_host(out, u->host);
        fprintf(out, ":%d", atoi(u->port));
    }
    fputc('?', out); /* encoded elsewhere */
    put_encoded(out, u->export, "/");
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
