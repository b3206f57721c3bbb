/* SPDX-License-Identifier: BSD-3-Clause */
/* pcap.h - a record of TPM commands and responses, for wireshark and tshark: a pcap file of the
 * packets that a TPM simulator at TCP port 2321 would have received and sent, which they decode.
 *
 * It is a help for debugging: a record that cannot be written is reported, once, and the TPM goes
 * on.  One thread owns it. */
#ifndef VNVRAM_TPM_PCAP_H
#define VNVRAM_TPM_PCAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pcap {
    int fd;           /* -1: no record is kept */
    uint32_t seqs[2]; /* of commands and of responses: bytes so far */
};

/* Makes @path, or begins it anew if it is such a file.  -EEXIST: it holds something else. */
int pcap_create(const char *path, int *fd);

void pcap_command(struct pcap *p, const uint8_t *cmd, size_t len);
void pcap_response(struct pcap *p, const uint8_t *resp, size_t len);

#endif
