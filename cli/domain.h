/* SPDX-License-Identifier: BSD-3-Clause */
/* domain.h - where libvirt keeps the TPM of a domain, read from its files: no daemon of libvirt's
 * needs to run. */
#ifndef VNVRAM_CLI_DOMAIN_H
#define VNVRAM_CLI_DOMAIN_H

#include <stdbool.h>

struct domain {
    char *name, *uuid;
    char *dir;    /* the state of its swtpm; NULL with an external TPM */
    char *socket; /* of an external TPM */
    bool has_tpm;
};

/* By name or UUID, of the system's libvirt.  -ENOENT: no such domain; others are reported. */
int domain_find(struct domain *d, const char *name);
void domain_fini(struct domain *d);

/* The value of a setting in qemu.conf, without quotes; of a list, all of it.  NULL: not set. */
char *domain_setting(const char *name);
/* Whom libvirt runs swtpm as, and QEMU: a name or a number; free() it.  NULL: memory is short. */
char *domain_swtpm_user(void);
char *domain_qemu_user(void);

#endif
