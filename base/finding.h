/* SPDX-License-Identifier: BSD-3-Clause */
/* finding.h - what can be wrong with an image, as one negative errno each and one exit code each.
 *
 *   errno             exit  finding
 *   -ENODATA             3  blank image: every byte is zero
 *   -EMEDIUMTYPE         4  not a vnvram image: foreign data
 *   -EUCLEAN             5  damaged
 *   -ENOKEY              6  sealed, and no key was given
 *   -EKEYREJECTED        7  the key opens no key slot
 *   -EKEYREVOKED         8  a key was given, and the image is not sealed
 *   -EPROTONOSUPPORT     9  unsupported version, feature or cipher
 *   -ERANGE             10  too small or truncated
 *   -EBUSY              11  in use
 *   -ESTALE             12  rolled back
 *   -EBADMSG            13  forged: checksum right, authentication wrong
 *   -EINVAL              2  usage
 *   any other            1  I/O or system error
 */
#ifndef VNVRAM_BASE_FINDING_H
#define VNVRAM_BASE_FINDING_H

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_BLANK = 3,
    EXIT_FOREIGN = 4,
    EXIT_DAMAGED = 5,
    EXIT_KEY_MISSING = 6,
    EXIT_WRONG_KEY = 7,
    EXIT_NOT_SEALED = 8,
    EXIT_UNSUPPORTED = 9,
    EXIT_TOO_SMALL = 10,
    EXIT_IN_USE = 11,
    EXIT_ROLLED_BACK = 12,
    EXIT_FORGED = 13,
};

/* @r is 0 or a negative errno. */
enum exit_code finding_exit_code(int r);
/* "damaged", "wrong key", ...; for an errno that is no finding, its strerror(). */
const char *finding_name(int r);

#endif
