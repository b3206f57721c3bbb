/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/report.h"
#include "crypt/keys.h"
#include "crypt/secret.h"
#include <errno.h>
#include <gcrypt.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define GCRYPT_NEEDED "1.10.0"

int
crypt_init(void)
{
    const struct rlimit none = {0, 0};

    /* A crash while the process waits for its own mount must not dump core (nor show keys). */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
        return report(-errno, "cannot forbid core dumps: %s", errno_text(errno));
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P))
        return 0;
    if (!gcry_check_version(GCRYPT_NEEDED))
        return report(-EPROTONOSUPPORT, "libgcrypt %s is too old, %s is needed",
                      gcry_check_version(NULL), GCRYPT_NEEDED);
    secret_pool_init();
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    if (gcry_md_test_algo(GCRY_MD_CRC32) || gcry_md_test_algo(GCRY_MD_SHA256) ||
        gcry_mac_test_algo(GCRY_MAC_HMAC_SHA256) || gcry_cipher_test_algo(GCRY_CIPHER_AES256))
        return report(-EPROTONOSUPPORT, "libgcrypt lacks CRC32, SHA-256, HMAC-SHA-256 or AES");
    return 0;
}
