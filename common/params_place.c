/*
 * Where the configuration is, and where state and socket go when nobody says.
 *
 * Runs at the start of every program, main thread. Reads the environment, the user database and the
 * existence of files; makes no directory and no file. A service (the file of /etc/sluice) lives in
 * /var/lib and /run; anybody else gets places that are private to the user, never a shared /tmp. As
 * the XDG rules say, relative paths in XDG_* are ignored. Faults: a named file that is not there, a
 * user without a home, a path that is too long.
 */
#include "common/params_table.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define USER_FILE ".config/sluice/sluice.conf"
#define SYSTEM_STATE_DIR "/var/lib/sluice"
#define SYSTEM_SOCKET "/run/sluice/sluice.sock"

/* A variable that is set and not empty. */
static const char *find_variable(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

static const char *find_dir_variable(const char *name)
{
    const char *value = find_variable(name);

    return value != NULL && value[0] == '/' ? value : NULL;
}

/* The user's home; NULL: there is none. A service started without HOME has its home in the user
 * database. */
static const char *find_home(void)
{
    const char *home = find_dir_variable("HOME");

    if (home != NULL) {
        return home;
    }
    /* cppcheck-suppress getpwuidCalled ; read at start, before there is a second thread */
    const struct passwd *entry = getpwuid(getuid());
    if (entry != NULL && entry->pw_dir != NULL && entry->pw_dir[0] == '/') {
        return entry->pw_dir;
    }
    return getuid() == 0 ? "/root" : NULL;
}

MUST_CHECK static bool join(char *out, size_t size, const char *dir, const char *name)
{
    int len = snprintf(out, size, "%s/%s", dir, name);

    return len > 0 && (size_t)len < size;
}

/* ---- the file -------------------------------------------------------------------------------- */

enum presence { PRESENT, ABSENT, UNKNOWABLE };

static enum presence look_for(const char *path)
{
    struct stat info;

    if (stat(path, &info) == 0) {
        return PRESENT;
    }
    return errno == ENOENT || errno == ENOTDIR ? ABSENT : UNKNOWABLE;
}

/* A file that was asked for: it must be there. */
static bool use_named_file(struct sl_params_load *load, const char *path, const char *asked_by)
{
    char *source = load->config->source;

    if (strlen(path) >= sizeof(load->config->source)) {
        return sl_params_refuse_line(load, 0, "%s names a file of %zu bytes; at most %zu", asked_by,
                                     strlen(path), sizeof(load->config->source) - 1);
    }
    if (look_for(path) != PRESENT) {
        return sl_params_refuse_line(load, 0,
                                     "%.200s: cannot read the configuration: %s; %s "
                                     "names it",
                                     path, strerror(errno), asked_by);
    }
    memcpy(source, path, strlen(path) + 1);
    return true;
}

/* A file that may be there; *is_done when it is. */
static bool use_usual_file(struct sl_params_load *load, const char *path, bool *is_done)
{
    switch (look_for(path)) {
    case ABSENT:
        return true;
    case PRESENT:
        *is_done = true;
        return use_named_file(load, path, "the search for a configuration");
    case UNKNOWABLE:
        break;
    }
    return sl_params_refuse_line(load, 0, "%.200s: cannot read the configuration: %s", path,
                                 strerror(errno));
}

bool sl_params_find_file(struct sl_params_load *load, const char *path, const char *system_file)
{
    char user_file[SL_PATH_BYTES_MAX];
    const char *variable = find_variable("SLUICE_CONFIG");
    const char *home = find_home();
    bool is_done = false;

    if (path != NULL) {
        return use_named_file(load, path, "--config");
    }
    if (variable != NULL) {
        return use_named_file(load, variable, "SLUICE_CONFIG");
    }
    if (home != NULL && join(user_file, sizeof(user_file), home, USER_FILE)) {
        if (!use_usual_file(load, user_file, &is_done) || is_done) {
            return is_done;
        }
    }
    return use_usual_file(load, system_file, &is_done);
}

/* ---- state and socket ------------------------------------------------------------------------ */

static struct sl_param_target target_of(struct sl_params_load *load, const char *key)
{
    return (struct sl_param_target){.load = load, .row = sl_params_find_row(key)};
}

static bool set_state_dir(struct sl_params_load *load)
{
    struct sl_param_target target = target_of(load, "state_dir");
    char path[SL_PATH_BYTES_MAX];
    const char *state_home = find_dir_variable("XDG_STATE_HOME");
    const char *home = find_home();

    if (strcmp(load->config->source, SL_PARAMS_SYSTEM_FILE) == 0) {
        return sl_params_set_string(&target, SYSTEM_STATE_DIR);
    }
    if (state_home == NULL && home == NULL) {
        return sl_params_refuse(&target, "this user has no home directory; set HOME, "
                                         "XDG_STATE_HOME or SLUICE_STATE_DIR");
    }
    bool fits = state_home != NULL ? join(path, sizeof(path), state_home, "sluice")
                                   : join(path, sizeof(path), home, ".local/state/sluice");
    if (!fits) {
        return sl_params_refuse(&target, "the home directory's path is too long; set state_dir or "
                                         "SLUICE_STATE_DIR");
    }
    return sl_params_set_string(&target, path);
}

static bool set_socket(struct sl_params_load *load)
{
    struct sl_param_target target = target_of(load, "socket");
    char path[SL_PATH_BYTES_MAX];
    const char *runtime_dir = find_dir_variable("XDG_RUNTIME_DIR");
    const char *dir = runtime_dir != NULL ? runtime_dir : load->config->state_dir;

    if (strcmp(load->config->source, SL_PARAMS_SYSTEM_FILE) == 0) {
        return sl_params_set_string(&target, SYSTEM_SOCKET);
    }
    if (!join(path, sizeof(path), dir, "sluice.sock") || strlen(path) > (size_t)target.row->max) {
        return sl_params_refuse(&target,
                                "%.120s/sluice.sock is too long for a socket (%s); set "
                                "socket or SLUICE_SOCKET to a shorter path",
                                dir, target.row->range);
    }
    return sl_params_set_string(&target, path);
}

bool sl_params_set_paths(struct sl_params_load *load)
{
    if (load->config->state_dir[0] == '\0' && !set_state_dir(load)) {
        return false;
    }
    return load->config->socket_path[0] != '\0' || set_socket(load);
}
