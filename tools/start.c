/*
 * Starts a private pair: broker and worker service, each in a new session, output appended to
 * STATE_DIR/broker.log and worker.log.
 *
 * Runs in sluice-submit. The pair is told `--private`: it drains and leaves by itself when nobody
 * needs it. A lock file in the state directory lets one tool start at a time; whoever finds it
 * taken waits for the other's pair. Never kills anything: a pair that did not answer in time is
 * left alone, and the message names its log. If this program dies in the middle, the lock goes
 * with it and what was started serves the next one.
 *
 * Reports SL_ERR_IO (directory, log, program not startable), SL_ERR_UNREACHABLE (no answer within
 * ten seconds), SL_ERR_INTERRUPTED.
 */
#include "tools/start.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/os.h"

#define START_TIMEOUT_S 10
#define CONNECT_PAUSE_MS 20 /* between two attempts to connect */
#define ENABLE_VARIABLE "SLUICE_LLM_QUEUE_ENABLED="

extern char **environ;

/* The program beside the running one if it is there, else its bare name for PATH. */
static void find_program(const char *name, char path[PATH_MAX])
{
    ssize_t len = readlink("/proc/self/exe", path, PATH_MAX - 1);

    if (len > 0) {
        path[len] = '\0';
        char *slash = strrchr(path, '/');
        size_t room = PATH_MAX - (size_t)(slash + 1 - path);
        snprintf(slash + 1, room, "%s", name);
        if (access(path, X_OK) == 0) {
            return;
        }
    }
    snprintf(path, PATH_MAX, "%s", name);
}

/* Our environment with the queue enabled. The array is the caller's to free; its strings are not.
 */
static char **make_environment(void)
{
    static char enable[] = ENABLE_VARIABLE "1";
    size_t count = 0;
    size_t kept = 0;

    while (environ[count] != NULL) {
        count++;
    }
    char **result = calloc(count + 2, sizeof(*result));
    if (result == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (strncmp(environ[i], ENABLE_VARIABLE, strlen(ENABLE_VARIABLE)) != 0) {
            result[kept++] = environ[i];
        }
    }
    result[kept] = enable;
    return result;
}

/* Signals as a fresh program expects them: none blocked, none ignored because of us. */
static int prepare_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none;
    sigset_t reset;
    int rc = posix_spawnattr_init(attributes);

    if (rc != 0) {
        return rc;
    }
    sigemptyset(&none);
    sigemptyset(&reset);
    sigaddset(&reset, SIGPIPE);
    posix_spawnattr_setsigmask(attributes, &none);
    posix_spawnattr_setsigdefault(attributes, &reset);
    return posix_spawnattr_setflags(
        attributes, (short)(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID));
}

static int prepare_files(posix_spawn_file_actions_t *files, const char *log_path)
{
    int rc = posix_spawn_file_actions_init(files);

    if (rc == 0) {
        rc = posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    }
    if (rc == 0) {
        rc = posix_spawn_file_actions_addopen(files, STDOUT_FILENO, log_path,
                                              O_WRONLY | O_CREAT | O_APPEND, 0600);
    }
    return rc != 0 ? rc : posix_spawn_file_actions_adddup2(files, STDOUT_FILENO, STDERR_FILENO);
}

struct service {
    const char *program;
    char log_path[PATH_MAX];
    pid_t pid;
};

/* Starts one of the two programs; 0 or an errno. */
static int spawn(const struct sl_tool *tool, struct service *service)
{
    char path[PATH_MAX];
    char private_option[] = "--private";
    char config_option[] = "--config";
    char config_path[PATH_MAX];
    char *arguments[] = {path, private_option, NULL, NULL, NULL};
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t files;
    char **environment = make_environment();

    find_program(service->program, path);
    if (tool->config_path != NULL) {
        snprintf(config_path, sizeof(config_path), "%s", tool->config_path);
        arguments[2] = config_option;
        arguments[3] = config_path;
    }
    int rc = environment == NULL ? ENOMEM : prepare_attributes(&attributes);
    if (rc == 0) {
        rc = prepare_files(&files, service->log_path);
        if (rc == 0) {
            rc = posix_spawnp(&service->pid, path, &files, &attributes, arguments, environment);
        }
        posix_spawn_file_actions_destroy(&files);
        posix_spawnattr_destroy(&attributes);
    }
    free(environment);
    return rc;
}

static enum sl_err start_service(struct sl_tool *tool, struct service *service)
{
    snprintf(service->log_path, sizeof(service->log_path), "%s/%s.log", tool->cfg->state_dir,
             service->program + strlen("sluice-"));
    int rc = spawn(tool, service);

    if (rc != 0) {
        return sl_tool_fail(tool, SL_ERR_IO, "cannot start %s (log %s): %s", service->program,
                            service->log_path, strerror(rc));
    }
    return SL_OK;
}

/* Has the process we started ended? Its status then. */
static bool has_exited(const struct service *service, int *status)
{
    return service->pid > 0 && waitpid(service->pid, status, WNOHANG) == service->pid;
}

/* Connects as soon as the broker answers. */
static enum sl_err await_broker(struct sl_tool *tool, const struct service *broker)
{
    int64_t due_ns = sl_clock_mono_ns() + START_TIMEOUT_S * SL_NS_PER_S;
    int status = 0;

    for (;;) {
        bool is_gone = has_exited(broker, &status);
        enum sl_err err = sl_tool_connect(tool);
        if (err != SL_ERR_UNREACHABLE) {
            return err;
        }
        if (is_gone) {
            return sl_tool_fail(tool, err, "sluice-broker ended at once (%s %d); see %s",
                                WIFEXITED(status) ? "exit status" : "signal",
                                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
                                broker->log_path);
        }
        if (sl_clock_mono_ns() >= due_ns) {
            return sl_tool_fail(tool, err, "sluice-broker does not answer within %d s; see %s",
                                START_TIMEOUT_S, broker->log_path);
        }
        if (sl_tool_is_stopped(tool, CONNECT_PAUSE_MS)) {
            return sl_tool_fail(tool, SL_ERR_INTERRUPTED, "interrupted");
        }
    }
}

static enum sl_err start_both(struct sl_tool *tool, struct service *broker)
{
    struct service worker = {.program = "sluice-worker"};
    enum sl_err err = start_service(tool, broker);

    return err != SL_OK ? err : start_service(tool, &worker);
}

/* With the lock in hand: starts the pair, unless another tool had finished starting one just before
 * we got the lock. */
static enum sl_err start_locked(struct sl_tool *tool, struct service *broker)
{
    if (sl_tool_connect(tool) == SL_OK) {
        return SL_OK;
    }
    enum sl_err err = start_both(tool, broker);
    return err != SL_OK ? err : await_broker(tool, broker);
}

enum sl_err sl_start_pair(struct sl_tool *tool)
{
    char lock_path[PATH_MAX];
    int lock_fd = -1;
    pid_t holder = 0;
    struct service broker = {.program = "sluice-broker"};

    if (sl_os_make_dirs(tool->cfg->state_dir, 0700) != SL_OK) {
        return sl_tool_fail(tool, SL_ERR_IO, "cannot make the state directory %s: %s",
                            tool->cfg->state_dir, strerror(errno));
    }
    snprintf(lock_path, sizeof(lock_path), "%s/start.lock", tool->cfg->state_dir);
    snprintf(broker.log_path, sizeof(broker.log_path), "%s/broker.log", tool->cfg->state_dir);
    enum sl_err err = sl_os_lock_file(lock_path, &lock_fd, &holder);
    if (err != SL_OK && err != SL_ERR_STORE_LOCKED) {
        return sl_tool_fail(tool, SL_ERR_IO, "cannot write into the state directory %s: %s",
                            tool->cfg->state_dir, strerror(errno));
    }
    err = err == SL_OK ? start_locked(tool, &broker) : await_broker(tool, &broker);
    sl_os_close(&lock_fd);
    return err;
}
