/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/finding.h"
#include "base/report.h"
#include <errno.h>
#include <stddef.h>

static const struct {
    int err;
    enum exit_code code;
    const char *name;
} findings[] = {
    {0, EXIT_DONE, "done"},
    {-EINVAL, EXIT_USAGE, "usage"},
    {-ENODATA, EXIT_BLANK, "blank image"},
    {-EMEDIUMTYPE, EXIT_FOREIGN, "not a vnvram image"},
    {-EUCLEAN, EXIT_DAMAGED, "damaged"},
    {-ENOKEY, EXIT_KEY_MISSING, "key missing"},
    {-EKEYREJECTED, EXIT_WRONG_KEY, "wrong key"},
    {-EKEYREVOKED, EXIT_NOT_SEALED, "key given, but the image is not sealed"},
    {-EPROTONOSUPPORT, EXIT_UNSUPPORTED, "unsupported version, feature or cipher"},
    {-ERANGE, EXIT_TOO_SMALL, "too small or truncated"},
    {-EBUSY, EXIT_IN_USE, "in use"},
    {-ESTALE, EXIT_ROLLED_BACK, "rolled back"},
    {-EBADMSG, EXIT_FORGED, "forged"},
};

enum exit_code
finding_exit_code(int r)
{
    for (size_t i = 0; i < sizeof findings / sizeof findings[0]; i++) {
        if (findings[i].err == r)
            return findings[i].code;
    }
    return EXIT_FAILED;
}

const char *
finding_name(int r)
{
    for (size_t i = 0; i < sizeof findings / sizeof findings[0]; i++) {
        if (findings[i].err == r)
            return findings[i].name;
    }
    return errno_text(r);
}
