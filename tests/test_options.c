/* SPDX-License-Identifier: BSD-3-Clause */
/* The option table: what a command line becomes. */
#include "base/report.h"
#include "base/scope.h"
#include "cli/options.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char said[1024];

static void
listen(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level;
    snprintf(said, sizeof said, "%s", line);
}

/* Parses the words of @line, divided by single blanks, which stays for as long as @o. */
static int
parse(struct options *o, unsigned where, char *line)
{
    static char *argv[32];
    int argc = 0;

    argv[argc++] = (char[]){"command"};
    for (char *word; (word = strsep(&line, " ")) != NULL && argc < 31;)
        argv[argc++] = word;
    argv[argc] = NULL;
    said[0] = '\0';
    return options_parse(o, where, "", argc, argv);
}

#define PARSE(o, where, text) parse(o, where, (char[]){text})

static void
without_options_the_defaults_hold(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_MOUNT, "image dir"), 0);
    assert_int_equal(o.n_args, 2);
    assert_string_equal(o.args[0], "image");
    assert_string_equal(o.args[1], "dir");
    assert_false(o.read_only || o.degraded || o.allow_other || o.foreground || o.key.given);
    assert_true(o.uid == (uid_t)-1 && o.gid == (gid_t)-1 && o.umask == (mode_t)-1);
    assert_int_equal(o.tpm.version, TPM_VERSION_NONE);
    assert_int_equal(o.tpm.startup, TPM_STARTUP_CLEAR);
    assert_false(o.startup_given);
    assert_null(o.kernel);
}

static void
words_and_arguments_come_in_any_order(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_MOUNT,
                           "image -o ro,uid=5 dir -otpm=1.2,startup=state -o "
                           "gid=0,umask=027,,allow_other,foreground"),
                     0);
    assert_int_equal(o.n_args, 2);
    assert_string_equal(o.args[1], "dir");
    assert_true(o.read_only && o.allow_other && o.foreground);
    assert_int_equal(o.uid, 5);
    assert_int_equal(o.gid, 0);
    assert_int_equal(o.umask, 027);
    assert_int_equal(o.tpm.version, TPM_VERSION_1_2);
    assert_int_equal(o.tpm.startup, TPM_STARTUP_STATE);
    assert_true(o.startup_given);
}

static void
the_control_channels_words(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_MOUNT, "image dir"), 0);
    assert_null(o.ctrl);
    assert_null(o.server);
    assert_int_equal(o.ctrl_fd, -1);
    assert_int_equal(o.ctrl_mode, 0600);
    assert_int_equal(o.ctrl_uid, (uid_t)-1);
    options_fini(&o);
    assert_int_equal(PARSE(&o, FOR_MOUNT,
                           "image dir -o tpm=2.0,ctrl=a,ctrl=socket,ctrl_mode=660,ctrl_uid=5,"
                           "ctrl_gid=6,terminate,reject_locality_4,ctrl_fd=7,uid=8,"
                           "server=/s"),
                     0);
    assert_string_equal(o.ctrl, "socket");
    assert_string_equal(o.server, "/s");
    assert_int_equal(o.ctrl_fd, 7);
    assert_int_equal(o.ctrl_mode, 0660);
    assert_int_equal(o.ctrl_uid, 5);
    assert_int_equal(o.ctrl_gid, 6);
    assert_int_equal(o.uid, 8);
    assert_true(o.tpm.terminate && o.tpm.reject_locality_4);
}

static void
the_last_of_ro_and_rw_holds(void **state)
{
    (void)state;
    for (int rw = 0; rw < 2; rw++) {
        AUTO(options_fini) struct options o;

        assert_int_equal(rw ? PARSE(&o, FOR_MOUNT, "-o ro,rw") : PARSE(&o, FOR_MOUNT, "-o rw,ro"),
                         0);
        assert_int_equal(o.read_only, !rw);
    }
}

static void
users_and_groups_have_names(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_MOUNT, "-o uid=root,gid=root"), 0);
    assert_int_equal(o.uid, 0);
    assert_int_equal(o.gid, 0);
}

static void
what_fstab_has_for_others_is_swallowed(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(
        PARSE(&o, FOR_MOUNT,
              "-o "
              "defaults,default_permissions,noauto,nofail,_netdev,user,user=jo,x-systemd.automount,"
              "x-systemd.requires=a.service,comment=systemd,relatime,X-mount.mkdir"),
        0);
    assert_null(o.kernel);
}

static void
what_the_kernel_knows_is_passed_on(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_MOUNT, "-o nosuid,ro,nodev,noexec,noatime"), 0);
    assert_string_equal(o.kernel, "nosuid,nodev,noexec,noatime");
    assert_true(o.no_atime);
    assert_true(o.read_only);
}

/* libfuse splits at commas that have no backslash; the kernel wants the quotes. */
static void
a_context_keeps_its_quotes_and_commas(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_MOUNT, "-o nosuid,context=\"u:r:t:s0:c1,c2\",ro"), 0);
    assert_string_equal(o.kernel, "nosuid,context=\"u:r:t:s0:c1\\,c2\"");
    assert_true(o.read_only);
}

static void
an_unknown_word_is_an_error_that_names_it(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_MOUNT, "-o ro,tmp=2.0"), -EINVAL);
    assert_non_null(strstr(said, "-o tmp: did you mean -o tpm?"));
}

static void
unless_mount_says_to_be_sloppy(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_MOUNT | FOR_MOUNT_HELPER, "a b -s -n -v -f -o ro,tmp=2.0"), 0);
    assert_true(o.read_only && o.fake);
}

static void
a_helpers_letter_goes_before_the_commands(void **state)
{
    (void)state;
    {
        AUTO(options_fini) struct options o;

        assert_int_equal(PARSE(&o, FOR_UNMOUNT, "-f"), 0);
        assert_true(o.force && !o.fake);
    }
    {
        AUTO(options_fini) struct options o;

        assert_int_equal(PARSE(&o, FOR_CHECK | FOR_FSCK_HELPER, "-a -f -C5 -C -T image"), 0);
        assert_int_equal(o.n_args, 1);
        assert_false(o.force);
    }
}

static void
words_of_another_command_are_errors(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(PARSE(&o, FOR_INFO, "-o ro"), -EINVAL);
    assert_non_null(strstr(said, "-o ro;"));
}

static void
slots_and_reservations_add_up(void **state)
{
    AUTO(options_fini) struct options o;

    (void)state;
    assert_int_equal(
        PARSE(&o, FOR_FORMAT, "--slots 2x1M,3x5000 --reserve a:1K --reserve=b:c:2 --size 1G i"), 0);
    assert_int_equal(o.n_classes, 2);
    assert_int_equal(o.classes[0].count, 2);
    assert_int_equal(o.classes[0].capacity, 1 << 20);
    assert_int_equal(o.classes[1].capacity, 5000);
    assert_int_equal(o.n_reservations, 2);
    assert_string_equal(o.reservations[1].name, "b:c");
    assert_int_equal(o.reservations[1].size, 2);
    assert_int_equal(o.size, 1 << 30);
}

static void
sizes_have_units_and_limits(void **state)
{
    static const struct {
        const char *text;
        uint64_t size; /* 0: refused */
    } cases[] = {
        {"1", 1},
        {"4k", 4096},
        {"4K", 4096},
        {"4KiB", 4096},
        {"2M", 2 << 20},
        {"3G", 3ULL << 30},
        {"16777215G", 16777215ULL << 30},
        {"17179869183G", 17179869183ULL << 30},
        {"17179869184G", 0},
        {"18446744073709551616", 0},
        {"", 0},
        {"K", 0},
        {"4KK", 0},
        {"4 K", 0},
        {"-4", 0},
        {"+4", 0},
        {"0x4", 0},
        {"4T", 0},
        {" 4", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t size = 0;
        int r = parse_size(cases[i].text, &size);

        if (r != (cases[i].size ? 0 : -EINVAL) || (r == 0 && size != cases[i].size))
            fail_msg("\"%s\": %d, %ju", cases[i].text, r, (uintmax_t)size);
    }
}

static int
start_listening(void **state)
{
    (void)state;
    report_set_sink(listen, NULL);
    return crypt_init();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_options_the_defaults_hold),
        cmocka_unit_test(words_and_arguments_come_in_any_order),
        cmocka_unit_test(the_control_channels_words),
        cmocka_unit_test(the_last_of_ro_and_rw_holds),
        cmocka_unit_test(users_and_groups_have_names),
        cmocka_unit_test(what_fstab_has_for_others_is_swallowed),
        cmocka_unit_test(what_the_kernel_knows_is_passed_on),
        cmocka_unit_test(a_context_keeps_its_quotes_and_commas),
        cmocka_unit_test(an_unknown_word_is_an_error_that_names_it),
        cmocka_unit_test(unless_mount_says_to_be_sloppy),
        cmocka_unit_test(a_helpers_letter_goes_before_the_commands),
        cmocka_unit_test(words_of_another_command_are_errors),
        cmocka_unit_test(slots_and_reservations_add_up),
        cmocka_unit_test(sizes_have_units_and_limits),
    };

    return cmocka_run_group_tests(tests, start_listening, NULL);
}
