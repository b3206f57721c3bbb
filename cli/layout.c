/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/layout.h"
#include "base/report.h"
#include <errno.h>
#include <string.h>

enum { KIB = 1024, MIB = 1024 * 1024 };

struct profile {
    struct slot_class classes[4];
    size_t n_classes;
    uint64_t image_size; /* 0: what the slots take */
};

static const struct profile profile_tpm = {
    {{4, 256 * KIB}, {8, 64 * KIB}, {16, 4 * KIB}},
    3,
    4 * MIB,
};

static const struct profile profile_vm = {
    {{2, 640 * KIB}, {4, 256 * KIB}, {8, 64 * KIB}, {16, 4 * KIB}},
    4,
    8 * MIB,
};

/* The least that a TPM's state fits in, however full it gets, beside the temporary file and the
 * backup that a store makes: the permanent state of a TPM 2.0 cannot pass 177,000 bytes. */
static const struct profile least_tpm20 = {{{3, 180 * KIB}, {4, 68 * KIB}, {4, 4 * KIB}}, 3, 0};
static const struct profile least_tpm12 = {{{5, 44 * KIB}, {3, 4 * KIB}}, 2, 0};

static const struct profile *
choose_profile(const struct options *o)
{
    if (o->tpm.version == TPM_VERSION_2_0)
        return &least_tpm20;
    if (o->tpm.version == TPM_VERSION_1_2)
        return &least_tpm12;
    return o->profile && strcmp(o->profile, "vm") == 0 ? &profile_vm : &profile_tpm;
}

int
layout_from_options(struct format_spec *spec, struct options *o)
{
    const bool slots = o->n_classes > 0, tpm = o->tpm.version != TPM_VERSION_NONE;
    uint64_t size = 0;

    if (slots + tpm + (o->profile != NULL) > 1)
        return report(-EINVAL, "only one of --slots, --profile and --tpm can be given");
    if (!slots) {
        const struct profile *p = choose_profile(o);

        memcpy(o->classes, p->classes, p->n_classes * sizeof p->classes[0]);
        o->n_classes = p->n_classes;
        size = p->image_size;
    }
    spec->classes = o->classes;
    spec->n_classes = o->n_classes;
    spec->reservations = o->reservations;
    spec->n_reservations = o->n_reservations;
    spec->image_size = o->size ? o->size : size;
    return 0;
}
