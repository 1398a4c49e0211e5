/*
 * sluice-submit: a file of calls in, a file of answers out.
 *
 * Hands the lines of a file to the broker and, with --wait, writes the answers as they come. It
 * makes no call itself and holds nothing that matters: interrupted or killed at any moment, the
 * same command goes on where it was, because a task is (job, id) and is never done twice. Where the
 * job was not named, its name is printed, and kept beside the output file until that is complete.
 *
 * Errors are one line on stderr; the exit status is the contract's. An input error opens with
 * FILE:LINE:COLUMN.
 */
#include "tools/submit.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "common/opts.h"
#include "tools/output.h"

static const struct sl_opt options[] = {
    SL_OPT_CONFIG,
    {"job", "NAME", "add to this job, or make it (default: a new one, whose name is printed)"},
    {"model", "MODEL", "the model of lines that name none"},
    {"provider", "NAME", "the provider of lines that name none (default: chosen by model)"},
    {"stage", "NAME", "a label for metrics, for lines that have none"},
    {"service-id", "NAME", "a label for metrics, for lines that have none"},
    {"priority", "0..9", "the priority of lines that name none; higher goes first (default: 5)"},
    {"wait", NULL, "wait until every task of the job has ended, and write the answers"},
    {"output", "FILE",
     "write the answers to FILE (default: stdout); needs --wait.\n"
     "Without --job the job's name is kept in FILE.sluice-job until FILE is complete,\n"
     "so that the same command after an interruption goes on with the same job"},
    {"ordered", NULL, "write the answers in the order of the input; needs --wait"},
    {"progress", "WHEN",
     "auto | always | never: a progress line on stderr (default: auto, on a terminal)"},
    {"dry-run", NULL, "only check the input; needs no broker"},
    {"start", NULL,
     "start a private broker and worker in the background when no broker answers;\n"
     "they leave by themselves when they have nothing to do for idle_exit_s"},
    {NULL, NULL, NULL},
};

static const struct sl_opts_spec spec = {
    .program = "sluice-submit",
    .usage = "[OPTIONS] [FILE|-]",
    .description =
        "Hands LLM calls to the queue: one JSON object a line, OpenAI's batch lines or\n"
        "{\"id\":\"q-1\",\"prompt\":\"Hello\",\"model\":\"gpt-4o-mini\"}. Reads standard input "
        "without FILE.\n"
        "\n"
        "Accepted tasks are on disk and go on whatever happens to this program. A bad line\n"
        "stops it with FILE:LINE:COLUMN: reason; after mending, the same command with the\n"
        "same --job goes on, and nothing is done twice. An id must not stand twice in one\n"
        "input (checked for the first 1,572,864 ids, in 16 MiB of memory; beyond that only\n"
        "ids with different bodies, and repetitions in a new job, are found).",
    .options = options,
    .positional_max = 1,
    .footer = SL_OPTS_EXIT_STATUSES,
};

/* ---- the command line ------------------------------------------------------------------------ */

/* A name option: NULL when it is not given; refused when it is empty or too long. */
static bool take_name(const struct sl_opts *opts, const char *option, const char **name)
{
    *name = sl_opts_get(opts, option);
    if (*name != NULL && ((*name)[0] == '\0' || strlen(*name) > SL_NAME_BYTES_MAX)) {
        (void)sl_opts_refuse(&spec, "--%s needs a name of 1 to %d bytes", option,
                             SL_NAME_BYTES_MAX);
        return false;
    }
    return true;
}

static struct sl_span span_or_empty(const char *text)
{
    return text != NULL ? sl_span_str(text) : (struct sl_span){0};
}

static bool take_defaults(const struct sl_opts *opts, struct sl_line_defaults *defaults)
{
    const char *model;
    const char *provider;
    const char *stage;
    const char *service_id;
    int64_t priority = SL_PRIORITY_DEFAULT;

    if (!take_name(opts, "model", &model) || !take_name(opts, "provider", &provider) ||
        !take_name(opts, "stage", &stage) || !take_name(opts, "service-id", &service_id) ||
        !sl_opts_get_integer(opts, "priority", 0, SL_PRIORITY_MAX, &priority)) {
        return false;
    }
    defaults->model = span_or_empty(model);
    defaults->provider = span_or_empty(provider);
    defaults->stage = span_or_empty(stage);
    defaults->service_id = span_or_empty(service_id);
    defaults->priority = (uint32_t)priority;
    return true;
}

static bool take_output(const struct sl_opts *opts, struct sl_submit *submit)
{
    submit->must_wait = sl_opts_has(opts, "wait");
    submit->must_order = sl_opts_has(opts, "ordered");
    submit->output_path = sl_opts_get(opts, "output");
    if (!submit->must_wait && (submit->output_path != NULL || submit->must_order)) {
        (void)sl_opts_refuse(&spec, "--%s needs --wait", submit->must_order ? "ordered" : "output");
        return false;
    }
    if (submit->output_path != NULL && strcmp(submit->output_path, "-") == 0) {
        submit->output_path = NULL;
    }
    return true;
}

static bool take_flags(const struct sl_opts *opts, struct sl_submit *submit)
{
    const char *mode = sl_opts_get(opts, "progress");

    submit->must_start = sl_opts_has(opts, "start");
    submit->is_dry_run = sl_opts_has(opts, "dry-run");
    if (mode != NULL && !sl_progress_mode_parse(mode, &submit->progress_mode)) {
        (void)sl_opts_refuse(&spec, "--progress must be auto, always or never");
        return false;
    }
    return take_output(opts, submit);
}

static bool take_options(const struct sl_opts *opts, struct sl_submit *submit)
{
    submit->input_path = opts->positional_count > 0 ? opts->positional[0] : NULL;
    return take_name(opts, "job", &submit->job_name) && take_defaults(opts, &submit->defaults) &&
           take_flags(opts, submit);
}

/* ---- reports --------------------------------------------------------------------------------- */

/* How the same command goes on: with --job where the name was not given and is not kept. */
static void format_way_on(const struct sl_submit *submit, char *text, size_t size)
{
    if (submit->job_name != NULL || submit->has_jobfile) {
        snprintf(text, size, "run the same command again");
    } else {
        snprintf(text, size, "run the same command again with --job %s", submit->job.name);
    }
}

static int report_bad_line(struct sl_submit *submit, enum sl_err err)
{
    char way_on[SL_NAME_BYTES_MAX + 64];
    unsigned long long taken = (unsigned long long)submit->accepted + submit->known;

    submit->tool.program = ""; /* the line opens with its place */
    if (submit->is_dry_run) {
        sl_tool_say(&submit->tool, "%s", submit->tool.fault.text);
    } else {
        format_way_on(submit, way_on, sizeof(way_on));
        sl_tool_say(&submit->tool, "%s; %llu tasks are accepted in job %s: %s, then %s",
                    submit->tool.fault.text, taken, submit->job.name,
                    err == SL_ERR_INPUT ? "mend the line" : sl_err_advice(err), way_on);
    }
    return sl_err_exit_status(err);
}

static int report(struct sl_submit *submit, enum sl_err err)
{
    char way_on[SL_NAME_BYTES_MAX + 64];

    sl_progress_clear(&submit->progress);
    if (submit->has_bad_line) {
        return report_bad_line(submit, err);
    }
    if (submit->job.name[0] == '\0') {
        return sl_tool_report(&submit->tool, err);
    }
    format_way_on(submit, way_on, sizeof(way_on));
    sl_tool_say(&submit->tool,
                "%s; %llu accepted tasks of job %s go on (sluice-status --job %s); to go on, %s",
                submit->tool.fault.text, (unsigned long long)submit->accepted + submit->known,
                submit->job.name, submit->job.name, way_on);
    return sl_err_exit_status(err);
}

/* ---- the run --------------------------------------------------------------------------------- */

static enum sl_err open_input(struct sl_submit *submit)
{
    enum sl_err err = sl_input_open(&submit->input, submit->input_path, submit->tool.stop_fd);

    if (err == SL_OK) {
        return SL_OK;
    }
    return sl_tool_fail(&submit->tool, err, "cannot read %s: %s",
                        submit->input_path != NULL ? submit->input_path : "standard input",
                        err == SL_ERR_INPUT ? strerror(errno) : sl_err_meaning(err));
}

/* The output is checked before a task is handed in: nobody pays for answers that have no place. */
static enum sl_err check_output(struct sl_submit *submit)
{
    if (!submit->must_wait) {
        return SL_OK;
    }
    if (sl_output_is_same_file(submit->output_path, submit->input.fd)) {
        return sl_tool_fail(&submit->tool, SL_ERR_USAGE, "--output %s is the input file",
                            submit->output_path);
    }
    if (sl_output_check(submit->output_path) != SL_OK) {
        return sl_tool_fail(&submit->tool, SL_ERR_OUTPUT, "cannot write %s: %s",
                            submit->output_path != NULL ? submit->output_path : "standard output",
                            strerror(errno));
    }
    return SL_OK;
}

static enum sl_err connect_first(struct sl_submit *submit)
{
    enum sl_err err = sl_submit_connect(submit, submit->must_start);

    if (err == SL_ERR_UNREACHABLE && !submit->must_start && !submit->tool.cfg->queue_enabled) {
        return sl_tool_fail(&submit->tool, SL_ERR_DISABLED, "llm_queue_enabled is false and %s",
                            submit->tool.fault.text);
    }
    return err;
}

/* The job of an interrupted run with this output, from its side file; false: none. */
static bool find_kept_job(struct sl_submit *submit, char name[SL_NAME_BYTES_MAX + 1])
{
    submit->has_jobfile =
        submit->job_name == NULL && submit->output_path != NULL &&
        sl_jobfile_init(&submit->jobfile, submit->output_path, submit->input_path);
    return submit->has_jobfile && sl_jobfile_load(&submit->jobfile, name);
}

/* Opens the job: the named one, the one an interrupted run with this output was on, or a new one.
 */
static enum sl_err open_job(struct sl_submit *submit)
{
    char kept[SL_NAME_BYTES_MAX + 1];
    struct sl_span name = span_or_empty(submit->job_name);
    bool is_kept = find_kept_job(submit, kept);

    if (is_kept) {
        name = sl_span_str(kept);
    }
    enum sl_err err = sl_client_open_job(submit->tool.client, name, true, &submit->job);
    if (err != SL_OK) {
        return sl_tool_keep_fault(&submit->tool, err);
    }
    if (submit->has_jobfile && !is_kept &&
        sl_jobfile_store(&submit->jobfile, submit->job.name) != SL_OK) {
        return sl_tool_fail(&submit->tool, SL_ERR_OUTPUT, "cannot write %s: %s",
                            submit->jobfile.path, strerror(errno));
    }
    if (submit->job_name == NULL) {
        fprintf(stderr, "job %s\n", submit->job.name);
    }
    return SL_OK;
}

static int dry_run(struct sl_submit *submit)
{
    enum sl_err err = sl_submit_send(submit);

    if (err != SL_OK) {
        return report(submit, err);
    }
    printf("%s: %llu tasks, no fault found\n", submit->input.name,
           (unsigned long long)submit->tasks);
    return fflush(stdout) == 0 ? 0 : sl_err_exit_status(SL_ERR_OUTPUT);
}

static int wait_for_answers(struct sl_submit *submit)
{
    uint64_t failed = 0;
    enum sl_err err = sl_submit_wait(submit, &failed);

    if (err != SL_OK) {
        return report(submit, err);
    }
    if (submit->has_jobfile) {
        sl_jobfile_remove(&submit->jobfile);
    }
    return failed == 0 ? 0 : 1;
}

static int submit_all(struct sl_submit *submit)
{
    enum sl_err err = check_output(submit);

    err = err != SL_OK ? err : connect_first(submit);
    err = err != SL_OK ? err : open_job(submit);
    err = err != SL_OK ? err : sl_submit_send(submit);
    if (err != SL_OK) {
        return report(submit, err);
    }
    if (submit->must_wait) {
        return wait_for_answers(submit);
    }
    if (submit->progress.is_on) {
        fprintf(stderr, "job %s: %llu tasks accepted, %llu known already\n", submit->job.name,
                (unsigned long long)submit->accepted, (unsigned long long)submit->known);
    }
    return 0;
}

static int run(struct sl_submit *submit)
{
    /* Answers on the same terminal would be torn by the progress line. */
    if (submit->progress_mode == SL_PROGRESS_AUTO && submit->must_wait &&
        submit->output_path == NULL && isatty(STDOUT_FILENO) == 1) {
        submit->progress_mode = SL_PROGRESS_NEVER;
    }
    sl_progress_init(&submit->progress, submit->progress_mode);
    enum sl_err err = open_input(submit);
    if (err != SL_OK) {
        return report(submit, err);
    }
    int exit_status = submit->is_dry_run ? dry_run(submit) : submit_all(submit);
    sl_input_close(&submit->input);
    return exit_status;
}

int main(int argc, char **argv)
{
    static struct sl_submit submit;
    struct sl_opts opts;
    int exit_status;

    if (sl_opts_parse(&spec, argc, argv, &opts, &exit_status) == SL_OPTS_EXIT) {
        return exit_status;
    }
    if (!take_options(&opts, &submit)) {
        return sl_err_exit_status(SL_ERR_USAGE);
    }
    enum sl_err err = sl_tool_init(&submit.tool, spec.program, sl_opts_get(&opts, "config"));
    exit_status = err == SL_OK ? run(&submit) : sl_err_exit_status(err);
    sl_tool_fini(&submit.tool);
    return exit_status;
}
