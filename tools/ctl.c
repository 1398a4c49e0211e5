/*
 * sluice-ctl: results, cancel, jobs, show, purge, drain.
 *
 * One command per run, from one table. Results go to stdout or a file as output lines, lists as
 * columns or as JSON; nothing else is printed on stdout, so it suits pipes. Holds nothing that
 * matters: whatever interrupts it, the same command gives the same answer again.
 *
 * Errors are one line on stderr with the contract's exit status; a reader of stdout that goes away
 * ends it as it ends other tools (SIGPIPE).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "common/opts.h"
#include "common/os.h"
#include "tools/doc.h"
#include "tools/output.h"
#include "tools/tool.h"

struct ctl {
    struct sl_tool tool;
    struct sl_span name; /* the command's argument; empty: it has none */
    const char *output_path;
    bool must_follow;
    bool must_order;
    bool as_json;
};

static const struct sl_opt options[] = {
    SL_OPT_CONFIG,
    {"output", "FILE", "results: write to FILE (default: stdout)"},
    {"follow", NULL, "results: wait for tasks that have not ended, until all have"},
    {"ordered", NULL, "results: in the order submitted (default: as they ended)"},
    {"json", NULL, "jobs, show: print JSON"},
    {NULL, NULL, NULL},
};

static const struct sl_opts_spec spec = {
    .program = "sluice-ctl",
    .usage = "[OPTIONS] COMMAND [NAME]",
    .description = "Steers the queue.\n"
                   "\n"
                   "Commands:\n"
                   "  results JOB       the results of a job, one JSON object a line\n"
                   "  cancel JOB|TASK   cancel what has not ended\n"
                   "  jobs              list the jobs\n"
                   "  show TASK         a task's state, its attempts, and why it waits\n"
                   "  purge JOB         forget a job all of whose tasks have ended\n"
                   "  drain             take nothing new, finish what runs, stop the broker",
    .options = options,
    .positional_max = 2,
    .footer = SL_OPTS_EXIT_STATUSES,
};

/* ---- results --------------------------------------------------------------------------------- */

static enum sl_err fail_output(struct ctl *ctl, enum sl_err err, const char *name)
{
    return sl_tool_fail(&ctl->tool, err, "cannot write %s: %s", name,
                        err == SL_ERR_OUTPUT ? strerror(errno) : sl_err_meaning(err));
}

/* The next result; what was received is written before it waits. */
static enum sl_err next_result(struct ctl *ctl, struct sl_output *output,
                               const struct sl_result_msg **result)
{
    enum sl_err err = sl_client_next(ctl->tool.client, 0, result);

    if (err == SL_ERR_AGAIN) {
        err = sl_output_flush(output);
        if (err != SL_OK) {
            return fail_output(ctl, err, output->name);
        }
        err = sl_client_next(ctl->tool.client, -1, result);
    }
    return err == SL_OK ? SL_OK : sl_tool_keep_fault(&ctl->tool, err);
}

/* Writes `result` and those after it. */
static enum sl_err write_results(struct ctl *ctl, struct sl_output *output,
                                 const struct sl_result_msg *result)
{
    enum sl_err err = SL_OK;

    while (err == SL_OK && result != NULL) {
        err = sl_output_add(output, result);
        if (err != SL_OK) {
            return fail_output(ctl, err, output->name);
        }
        err = next_result(ctl, output, &result);
    }
    return err;
}

/* Asks for the results and waits for the first answer to that. */
static enum sl_err begin_results(struct ctl *ctl, const struct sl_result_msg **first)
{
    enum sl_results_order order = ctl->must_order ? SL_RESULTS_AS_SUBMITTED : SL_RESULTS_AS_DONE;
    enum sl_err err = sl_client_results(ctl->tool.client, ctl->name, order, ctl->must_follow, 0);

    if (err == SL_OK) {
        err = sl_client_next(ctl->tool.client, -1, first);
    }
    return err == SL_OK ? SL_OK : sl_tool_keep_fault(&ctl->tool, err);
}

/* What the file held stays until the broker has answered: a wrong name empties no file. */
static enum sl_err do_results(struct ctl *ctl)
{
    struct sl_output output;
    const struct sl_result_msg *first = NULL;
    const char *name = ctl->output_path != NULL ? ctl->output_path : "standard output";

    if (sl_output_check(ctl->output_path) != SL_OK) {
        return fail_output(ctl, SL_ERR_OUTPUT, name);
    }
    enum sl_err err = begin_results(ctl, &first);
    if (err != SL_OK) {
        return err;
    }
    if (sl_output_open(&output, ctl->output_path) != SL_OK) {
        return fail_output(ctl, SL_ERR_OUTPUT, name);
    }
    err = write_results(ctl, &output, first);
    enum sl_err closed = sl_output_close(&output);
    return err == SL_OK && closed != SL_OK ? fail_output(ctl, closed, name) : err;
}

/* ---- documents ------------------------------------------------------------------------------- */

static enum sl_err write_text(struct ctl *ctl, struct sl_json_text *text)
{
    if (text->is_failed) {
        return sl_tool_fail(&ctl->tool, SL_ERR_NO_MEMORY, "out of memory");
    }
    if (sl_os_write_all(STDOUT_FILENO, text->buf, text->len, -1) != SL_OK) {
        return fail_output(ctl, SL_ERR_OUTPUT, "standard output");
    }
    return SL_OK;
}

/* One line a job: name, counts, time of creation, separated by tabs. */
static void put_jobs(const struct sl_doc *doc, struct sl_json_text *text)
{
    static const char *const counts[] = {"total", "completed", "failed", "cancelled", "expired"};
    size_t list = sl_doc_find(doc, 0, "jobs");

    sl_json_put_raw(text,
                    sl_span_str("name\ttotal\tcompleted\tfailed\tcancelled\texpired\tcreated\n"));
    for (size_t at = sl_doc_first(doc, list); at != SL_DOC_NONE; at = sl_doc_next(doc, list, at)) {
        sl_doc_put_plain(text, sl_doc_str(doc, at, "name"));
        for (size_t i = 0; i < SL_ARRAY_LEN(counts); i++) {
            sl_json_put_raw(text, sl_span_str("\t"));
            sl_json_put_uint(text, sl_doc_uint(doc, at, counts[i]));
        }
        sl_json_put_raw(text, sl_span_str("\t"));
        sl_doc_put_plain(text, sl_doc_str(doc, at, "created"));
        sl_json_put_raw(text, sl_span_str("\n"));
    }
}

static enum sl_err print_document(struct ctl *ctl, const struct sl_doc *doc,
                                  void (*put)(const struct sl_doc *, struct sl_json_text *))
{
    struct sl_json_text text = {0};

    if (!sl_doc_is_whole(doc)) {
        return sl_tool_fail(&ctl->tool, SL_ERR_PROTOCOL, "the broker's answer is not understood");
    }
    if (ctl->as_json) {
        sl_doc_put_json(doc, &text);
        sl_json_put_raw(&text, sl_span_str("\n"));
    } else {
        put(doc, &text);
    }
    enum sl_err err = write_text(ctl, &text);
    sl_json_text_fini(&text);
    return err;
}

static enum sl_err do_jobs(struct ctl *ctl)
{
    struct sl_doc doc;

    sl_doc_init(&doc);
    enum sl_err err = sl_client_jobs(ctl->tool.client, sl_doc_add, &doc);
    err = err == SL_OK ? print_document(ctl, &doc, put_jobs) : sl_tool_keep_fault(&ctl->tool, err);
    sl_doc_fini(&doc);
    return err;
}

static enum sl_err do_show(struct ctl *ctl)
{
    struct sl_doc doc;

    sl_doc_init(&doc);
    enum sl_err err = sl_client_show(ctl->tool.client, ctl->name, sl_doc_add, &doc);
    err = err == SL_OK ? print_document(ctl, &doc, sl_doc_put_lines)
                       : sl_tool_keep_fault(&ctl->tool, err);
    sl_doc_fini(&doc);
    return err;
}

/* ---- commands -------------------------------------------------------------------------------- */

static enum sl_err do_cancel(struct ctl *ctl)
{
    uint64_t count = 0;
    enum sl_err err = sl_client_cancel(ctl->tool.client, ctl->name, &count);

    if (err == SL_OK) {
        printf("%llu tasks cancelled\n", (unsigned long long)count);
    }
    return err == SL_OK ? SL_OK : sl_tool_keep_fault(&ctl->tool, err);
}

static enum sl_err do_purge(struct ctl *ctl)
{
    uint64_t count = 0;
    enum sl_err err = sl_client_purge(ctl->tool.client, ctl->name, &count);

    if (err == SL_OK) {
        printf("%llu tasks forgotten\n", (unsigned long long)count);
    }
    return err == SL_OK ? SL_OK : sl_tool_keep_fault(&ctl->tool, err);
}

static enum sl_err do_drain(struct ctl *ctl)
{
    uint64_t count = 0;
    enum sl_err err = sl_client_drain(ctl->tool.client, &count);

    if (err == SL_OK) {
        printf("draining; %llu calls in flight\n", (unsigned long long)count);
    }
    return err == SL_OK ? SL_OK : sl_tool_keep_fault(&ctl->tool, err);
}

static const struct command {
    const char *name;
    bool has_argument;
    enum sl_err (*run)(struct ctl *ctl);
} commands[] = {
    {"results", true, do_results}, {"cancel", true, do_cancel}, {"jobs", false, do_jobs},
    {"show", true, do_show},       {"purge", true, do_purge},   {"drain", false, do_drain},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static bool take_name(const struct sl_opts *opts, const struct command *command, struct ctl *ctl)
{
    if (opts->positional_count != (command->has_argument ? 2u : 1u)) {
        (void)sl_opts_refuse(&spec, "%s takes %s", command->name,
                             command->has_argument ? "one name" : "no name");
        return false;
    }
    ctl->name = sl_span_str(command->has_argument ? opts->positional[1] : "");
    if (command->has_argument && (ctl->name.len == 0 || ctl->name.len > SL_NAME_BYTES_MAX)) {
        (void)sl_opts_refuse(&spec, "a name has 1 to %d bytes", SL_NAME_BYTES_MAX);
        return false;
    }
    return true;
}

/* The command asked for, with its name taken; NULL: refused, the reason is printed. */
static const struct command *take_command(const struct sl_opts *opts, struct ctl *ctl)
{
    if (opts->positional_count == 0) {
        (void)sl_opts_refuse(&spec, "no command");
        return NULL;
    }
    const struct command *command = find_command(opts->positional[0]);
    if (command == NULL) {
        (void)sl_opts_refuse(&spec, "no such command: %s", opts->positional[0]);
        return NULL;
    }
    return take_name(opts, command, ctl) ? command : NULL;
}

static int report(struct ctl *ctl, enum sl_err err)
{
    if (err == SL_ERR_NOT_FOUND) {
        (void)sl_tool_fail(&ctl->tool, err, "no such job or task: %.*s", (int)ctl->name.len,
                           ctl->name.ptr);
    }
    return sl_tool_report(&ctl->tool, err);
}

static int run(struct ctl *ctl, const struct command *command)
{
    enum sl_err err = sl_tool_connect(&ctl->tool);

    /* `sluice-ctl results JOB | head` ends quietly. */
    (void)signal(SIGPIPE, SIG_DFL);
    if (err == SL_OK) {
        err = command->run(ctl);
    }
    if (err == SL_OK && fflush(stdout) != 0) {
        err = fail_output(ctl, SL_ERR_OUTPUT, "standard output");
    }
    return err == SL_OK ? 0 : report(ctl, err);
}

int main(int argc, char **argv)
{
    static struct ctl ctl;
    struct sl_opts opts;
    int exit_status;

    if (sl_opts_parse(&spec, argc, argv, &opts, &exit_status) == SL_OPTS_EXIT) {
        return exit_status;
    }
    const struct command *command = take_command(&opts, &ctl);
    if (command == NULL) {
        return sl_err_exit_status(SL_ERR_USAGE);
    }
    ctl.output_path = sl_opts_get(&opts, "output");
    ctl.must_follow = sl_opts_has(&opts, "follow");
    ctl.must_order = sl_opts_has(&opts, "ordered");
    ctl.as_json = sl_opts_has(&opts, "json");
    enum sl_err err = sl_tool_init(&ctl.tool, spec.program, sl_opts_get(&opts, "config"));
    exit_status = err == SL_OK ? run(&ctl, command) : sl_err_exit_status(err);
    sl_tool_fini(&ctl.tool);
    return exit_status;
}
