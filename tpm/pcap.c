/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/pcap.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { FILE_HEAD = 24, RECORD_HEAD = 16, IP_HEAD = 20, TCP_HEAD = 20, DATA_MAX = 4096 };
enum { MAGIC = 0xa1b2c3d4, LINKTYPE_IPV4 = 228, LOCALHOST = 0x7f000001 };
enum { PORT_CLIENT = 49152, PORT_TPM = 2321, TCP_PSH_ACK = 0x18 };

static int
write_file_head(int fd)
{
    uint8_t head[FILE_HEAD] = {0};

    store_be32(head, MAGIC);
    store_be16(head + 4, 2); /* version 2.4 */
    store_be16(head + 6, 4);
    store_be32(head + 16, IP_HEAD + TCP_HEAD + DATA_MAX);
    store_be32(head + 20, LINKTYPE_IPV4);
    return write(fd, head, sizeof head) == (ssize_t)sizeof head ? 0 : -EIO;
}

/* Nobody's file is lost by a slip in an option. */
static bool
may_be_overwritten(int fd)
{
    uint8_t magic[4];
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    return st.st_size == 0 || (pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
                               load_be32(magic) == (uint32_t)MAGIC);
}

int
pcap_create(const char *path, int *out)
{
    AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int r;

    if (fd < 0)
        return report(-EIO, "%s: cannot write there: %s", path, errno_text(errno));
    if (!may_be_overwritten(fd))
        return report(-EEXIST, "%s: holds something else than captured packets", path);
    r = ftruncate(fd, 0) < 0 ? -errno : write_file_head(fd);
    if (r < 0)
        return report(r, "%s: cannot write: %s", path, errno_text(r));
    *out = steal_fd(&fd);
    return 0;
}

static uint16_t
ip_checksum(const uint8_t head[IP_HEAD])
{
    uint32_t sum = 0;

    for (int i = 0; i < IP_HEAD; i += 2)
        sum += load_be16(head + i);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

static void
fill_heads(struct pcap *p, uint8_t *ip, bool response, size_t len)
{
    uint8_t *tcp = ip + IP_HEAD;

    ip[0] = 0x45; /* version 4, five words */
    store_be16(ip + 2, (uint16_t)(IP_HEAD + TCP_HEAD + len));
    ip[8] = 64; /* hops */
    ip[9] = 6;  /* TCP */
    store_be32(ip + 12, LOCALHOST);
    store_be32(ip + 16, LOCALHOST);
    store_be16(ip + 10, ip_checksum(ip));
    store_be16(tcp, response ? PORT_TPM : PORT_CLIENT);
    store_be16(tcp + 2, response ? PORT_CLIENT : PORT_TPM);
    store_be32(tcp + 4, p->seqs[response]);
    store_be32(tcp + 8, p->seqs[!response]);
    tcp[12] = TCP_HEAD / 4 << 4;
    tcp[13] = TCP_PSH_ACK;
    store_be16(tcp + 14, 0xffff); /* window */
    p->seqs[response] += (uint32_t)len;
}

/* In one write, so that a kill leaves whole records. */
static void
add(struct pcap *p, bool response, const uint8_t *buf, size_t len)
{
    uint8_t record[RECORD_HEAD + IP_HEAD + TCP_HEAD + DATA_MAX] = {0};
    const size_t heads = RECORD_HEAD + IP_HEAD + TCP_HEAD;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    store_be32(record, (uint32_t)now.tv_sec);
    store_be32(record + 4, (uint32_t)(now.tv_nsec / 1000));
    store_be32(record + 8, (uint32_t)(IP_HEAD + TCP_HEAD + len));
    store_be32(record + 12, (uint32_t)(IP_HEAD + TCP_HEAD + len));
    fill_heads(p, record + RECORD_HEAD, response, len);
    memcpy(record + heads, buf, len);
    if (write(p->fd, record, heads + len) != (ssize_t)(heads + len)) {
        report_at(REPORT_WARNING, 0, "pcap: cannot write: no more is recorded");
        scope_close(&p->fd);
        p->fd = -1;
    }
    explicit_bzero(record + heads, len);
}

void
pcap_command(struct pcap *p, const uint8_t *cmd, size_t len)
{
    if (p->fd >= 0 && len <= DATA_MAX)
        add(p, false, cmd, len);
}

void
pcap_response(struct pcap *p, const uint8_t *resp, size_t len)
{
    if (p->fd >= 0 && len <= DATA_MAX)
        add(p, true, resp, len);
}
