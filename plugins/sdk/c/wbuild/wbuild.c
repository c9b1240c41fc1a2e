// The layer over the bindings: see wbuild.h.

#include "wbuild.h"

#include <stdlib.h>
#include <string.h>

typedef wbuild_types_types_failure_t failure_t;
typedef wbuild_types_types_diagnostic_t diagnostic_t;
typedef wbuild_frontend_graph_output_t output_t;

#define COPIED(value) memcpy(malloc(sizeof(value)), &(value), sizeof(value))
#define NO_PAIRS (&(wb_pairs){0})
#define TRUE WB("true")
#define BORROWED(type, own) ((wbuild_frontend_graph_borrow_##type##_t){(own).__handle})

static bool failed;
static failure_t first;
static bool placed;
static wb_span place;

// The bindings have one helper for a world's type section; it is embedded by `wbuild plugin build`.
void __component_type_object_force_link_frontend(void) {}

// ---- failures --------------------------------------------------------------------------------

static diagnostic_t diagnostic(uint8_t severity, wb_text message, const wb_span *at) {
    diagnostic_t out = {.severity = severity, .message = message};
    if (at) {
        wbuild_types_types_label_t label = {.at = *at, .primary = true};
        out.labels.ptr = COPIED(label);
        out.labels.len = 1;
    }
    return out;
}

void wb_keep(failure_t *failure) {
    if (failed) return;
    failed = true;
    first = *failure;
    if (first.diagnostics.len == 0 && placed) {
        diagnostic_t shown = diagnostic(WBUILD_TYPES_TYPES_SEVERITY_ERROR, first.message, &place);
        first.diagnostics.ptr = COPIED(shown);
        first.diagnostics.len = 1;
    }
}

void wb_fail(const char *kind, wb_text message, const wb_span *at, const char *help) {
    failure_t failure = {.kind = {(uint8_t *)kind, strlen(kind)}, .message = message};
    if (at || placed) {
        diagnostic_t shown =
            diagnostic(WBUILD_TYPES_TYPES_SEVERITY_ERROR, message, at ? at : &place);
        if (help) shown.help = (frontend_option_string_t){true, {(uint8_t *)help, strlen(help)}};
        failure.diagnostics.ptr = COPIED(shown);
        failure.diagnostics.len = 1;
    } else if (help) {
        failure.attrs = wb_pair(failure.attrs, WB("hint"), (wb_text){(uint8_t *)help, strlen(help)});
    }
    wb_keep(&failure);
}

bool wb_failed(void) { return failed; }

bool wb_finish(failure_t *failure) {
    if (failed) *failure = first;
    return !failed;
}

void wb_at(const wb_span *at) {
    placed = at != NULL;
    if (at) place = *at;
}

void wb_warn(wb_text message, const wb_span *at) {
    diagnostic_t shown = diagnostic(WBUILD_TYPES_TYPES_SEVERITY_WARNING, message, at);
    wbuild_frontend_diagnostics_report(&shown);
}

void wb_log(wb_text line) { wbuild_types_log_log(WBUILD_TYPES_TYPES_SEVERITY_NOTE, &line); }

wb_source wb_add_source(wb_text name, wb_text language, wb_text text) {
    wb_source source = {.name = name, .text = text};
    failure_t failure;
    frontend_list_u8_t bytes = {text.ptr, text.len};
    if (!wbuild_frontend_diagnostics_add_source(&name, &language, &bytes, &source.id, &failure)) {
        wb_keep(&failure);
    }
    return source;
}

wb_span wb_span_of(const wb_source *source, wb_text part) {
    uint32_t start = (uint32_t)(part.ptr - source->text.ptr);
    return (wb_span){source->id, start, start + (uint32_t)part.len};
}

bool wb_next_line(const wb_source *source, wb_text *line) {
    uint8_t *end = source->text.ptr + source->text.len;
    uint8_t *start = line->ptr ? line->ptr + line->len : source->text.ptr;
    if (line->ptr) {
        while (start < end && *start != '\n') start++;
        start++;
    }
    if (start >= end || failed) return false;
    wb_text rest;
    *line = wb_cut((wb_text){start, (size_t)(end - start)}, '\n', &rest);
    if (line->len && line->ptr[line->len - 1] == '\r') line->len--;
    return true;
}

// ---- sources ---------------------------------------------------------------------------------

static wb_state named(bool ok, wb_state state, output_t output, failure_t *failure, wb_text name) {
    if (!ok) {
        wb_keep(failure);
        return state;
    }
    failure_t unnamed;
    wbuild_frontend_graph_list_span_t spans = {&place, placed};
    if (!wbuild_frontend_graph_annotate(&output, &name, &spans, NO_PAIRS, &unnamed)) wb_keep(&unnamed);
    state.some = true;
    state.output = output;
    return state;
}

wb_state wb_scratch(const wb_platform *platform) {
    return (wb_state){.dir = WB("/"), .platform = platform};
}

wb_state wb_image_tree(wb_text reference, const wb_platform *platform, wb_pairs options) {
    wb_state state = wb_scratch(platform);
    if (failed) return state;
    output_t output;
    failure_t failure;
    bool ok = wbuild_frontend_graph_image(&reference, (wb_platform *)platform, &options, &output, &failure);
    return named(ok, state, output, &failure, wb_join(WB_TEXTS(WB("image "), reference)));
}

wb_state wb_git(wb_text url, wb_text reference, wb_pairs options) {
    wb_state state = wb_scratch(NULL);
    if (failed) return state;
    output_t output;
    failure_t failure;
    bool ok = wbuild_frontend_graph_git(&url, &reference, &options, &output, &failure);
    return named(ok, state, output, &failure, url);
}

wb_state wb_http(wb_text url, wb_pairs options) {
    wb_state state = wb_scratch(NULL);
    if (failed) return state;
    output_t output;
    failure_t failure;
    bool ok = wbuild_frontend_graph_http(&url, NULL, &options, &output, &failure);
    return named(ok, state, output, &failure, url);
}

wb_state wb_local(wb_text name, wb_texts exclude, const wb_source *source) {
    wb_state state = wb_scratch(NULL);
    if (failed) return state;
    wbuild_frontend_graph_own_local_source_t spec = wbuild_frontend_graph_constructor_local_source(&name);
    for (size_t i = 0; i < exclude.len; i++) {
        wb_span at;
        if (source) at = wb_span_of(source, exclude.ptr[i]);
        wbuild_frontend_graph_method_local_source_exclude(
            BORROWED(local_source, spec), &exclude.ptr[i], source ? &at : NULL);
    }
    output_t output;
    failure_t failure;
    bool ok = wbuild_frontend_graph_local(spec, &output, &failure);
    return named(ok, state, output, &failure, name);
}

wb_state wb_merge(const wb_state *layers, size_t count) {
    wb_state state = count ? layers[0] : wb_scratch(NULL);
    if (failed) return state;
    wbuild_frontend_graph_list_output_t outputs = {malloc(count * sizeof(output_t)), 0};
    for (size_t i = 0; i < count; i++) {
        if (layers[i].some) outputs.ptr[outputs.len++] = layers[i].output;
    }
    output_t output;
    failure_t failure;
    bool ok = wbuild_frontend_graph_merge(&outputs, NO_PAIRS, &output, &failure);
    state.history = (wb_texts){0};
    return named(ok, state, output, &failure, WB("merge"));
}

wb_state wb_diff(wb_state lower, wb_state upper) {
    if (failed) return upper;
    output_t output;
    failure_t failure;
    bool ok = wbuild_frontend_graph_diff(
        lower.some ? &lower.output : NULL, upper.some ? &upper.output : NULL, NO_PAIRS, &output, &failure);
    upper.history = (wb_texts){0};
    return named(ok, upper, output, &failure, WB("diff"));
}

// ---- commands --------------------------------------------------------------------------------

static wb_text absolute(wb_text dir, wb_text path) {
    if (path.len && path.ptr[0] == '/') return path;
    bool root = dir.len == 1 && dir.ptr[0] == '/';
    return wb_join(WB_TEXTS(root ? WB("") : dir, WB("/"), path));
}

wb_state wb_env(wb_state state, wb_text name, wb_text value) {
    state.env = wb_replace(state.env, name, value);
    return state;
}

wb_state wb_dir(wb_state state, wb_text path) {
    state.dir = absolute(state.dir, path);
    return state;
}

wb_state wb_user(wb_state state, wb_text user) {
    state.user = user;
    return state;
}

static void add_mount(wbuild_frontend_graph_borrow_exec_op_t op, const wb_mount *mount) {
    wb_text *target = (wb_text *)&mount->target, id = mount->id, access = WB("ro");
    wb_pairs *options = (wb_pairs *)&mount->options;
    output_t *from = mount->from && mount->from->some ? (output_t *)&mount->from->output : NULL;
    wb_text path = mount->path;
    wb_text sharing = mount->sharing.len ? mount->sharing : WB("shared");
    if (!id.len) id = mount->kind == WB_SSH ? WB("default") : mount->target;
    switch (mount->kind) {
    case WB_CACHE:
        wbuild_frontend_graph_method_exec_op_cache_dir(op, target, &id, &sharing, from, options);
        break;
    case WB_BIND:
        wbuild_frontend_graph_method_exec_op_bind(op, target, from, &path, &access, options);
        break;
    case WB_TMPFS:
        wbuild_frontend_graph_method_exec_op_tmpfs(op, target, options);
        break;
    case WB_SECRET:
        wbuild_frontend_graph_method_exec_op_secret_file(op, target, &id, mount->required, options);
        break;
    case WB_SSH:
        wbuild_frontend_graph_method_exec_op_ssh(op, target, &id, mount->required, options);
        break;
    }
}

wb_state wb_run(wb_state state, wb_text command, const wb_run_options *options) {
    wb_run_options given = options ? *options : (wb_run_options){0};
    if (!given.name.len) given.name = command;
    return wb_exec(state, WB_TEXTS(WB("/bin/sh"), WB("-c"), command), &given);
}

wb_state wb_exec(wb_state state, wb_texts args, const wb_run_options *options) {
    static const wb_run_options defaults;
    if (!options) options = &defaults;
    if (failed) return state;
    wbuild_frontend_graph_own_exec_op_t own = wbuild_frontend_graph_constructor_exec_op(&args);
    wbuild_frontend_graph_borrow_exec_op_t op = BORROWED(exec_op, own);
    wbuild_frontend_graph_method_exec_op_env(op, &state.env);
    wbuild_frontend_graph_method_exec_op_cwd(op, &state.dir);
    if (state.user.len) wbuild_frontend_graph_method_exec_op_user(op, &state.user);
    if (state.platform) {
        wbuild_frontend_graph_method_exec_op_platform(op, (wb_platform *)state.platform);
    }
    wb_text network = options->network;
    if (network.len) wbuild_frontend_graph_method_exec_op_network(op, &network);
    wbuild_frontend_graph_method_exec_op_bind(
        op, &WB("/"), state.some ? &state.output : NULL, &WB(""), &WB("rw"), NO_PAIRS);
    for (size_t i = 0; i < options->mount_count; i++) add_mount(op, &options->mounts[i]);
    wbuild_frontend_graph_list_output_t outputs = {0};
    failure_t failure;
    bool ok = wbuild_frontend_graph_exec(own, &outputs, &failure);
    wb_text name = options->name.len ? options->name : args.ptr[0];
    state.history = wb_append(state.history, name);
    state = named(ok, state, ok ? outputs.ptr[0] : state.output, &failure, name);
    if (ok && options->no_cache && !wbuild_frontend_graph_ignore_cache(&state.output, &failure)) {
        wb_keep(&failure);
    }
    return state;
}

// ---- files -----------------------------------------------------------------------------------

static wbuild_frontend_graph_own_file_op_t begin_files(wb_state *state) {
    wbuild_frontend_graph_own_file_op_t op =
        wbuild_frontend_graph_constructor_file_op(state->some ? &state->output : NULL);
    if (placed) wbuild_frontend_graph_method_file_op_mark(BORROWED(file_op, op), &place);
    return op;
}

static wb_state end_files(wb_state state, wbuild_frontend_graph_own_file_op_t op, wb_text name) {
    output_t output;
    failure_t failure;
    bool ok = wbuild_frontend_graph_file(op, &output, &failure);
    state.history = wb_append(state.history, name);
    return named(ok, state, output, &failure, name);
}

wb_state wb_copy(wb_state state, wb_state from, wb_text path, wb_text target, wb_pairs options) {
    if (failed) return state;
    if (!from.some) from = end_files(from, begin_files(&from), WB("nothing"));
    wb_pairs all = {0};
    wb_text defaults[] = {WB("create-dest"), WB("wildcard"), WB("contents-only"), WB("keep-times")};
    for (size_t i = 0; i < sizeof(defaults) / sizeof(*defaults); i++) all = wb_pair(all, defaults[i], TRUE);
    for (size_t i = 0; i < options.len; i++) all = wb_pair(all, options.ptr[i].f0, options.ptr[i].f1);
    wbuild_frontend_graph_own_file_op_t op = begin_files(&state);
    wb_text to = absolute(state.dir, target);
    wbuild_frontend_graph_method_file_op_copy(
        BORROWED(file_op, op), &from.output, &(wb_texts){&path, 1}, &to, &all);
    return end_files(state, op, wb_join(WB_TEXTS(WB("copy "), path, WB(" "), target)));
}

wb_state wb_write(wb_state state, wb_text path, wb_text data, wb_pairs options) {
    if (failed) return state;
    wbuild_frontend_graph_own_file_op_t op = begin_files(&state);
    wb_text to = absolute(state.dir, path);
    frontend_list_u8_t bytes = {data.ptr, data.len};
    wbuild_frontend_graph_method_file_op_write(BORROWED(file_op, op), &to, &bytes, &options);
    return end_files(state, op, wb_join(WB_TEXTS(WB("write "), path)));
}

wb_state wb_mkdir(wb_state state, wb_text path, wb_pairs options) {
    if (failed) return state;
    wbuild_frontend_graph_own_file_op_t op = begin_files(&state);
    wb_text to = absolute(state.dir, path);
    wb_pairs all = wb_pair(options, WB("parents"), TRUE);
    wbuild_frontend_graph_method_file_op_mkdir(BORROWED(file_op, op), &to, &all);
    return end_files(state, op, wb_join(WB_TEXTS(WB("mkdir "), path)));
}

wb_state wb_remove(wb_state state, wb_text path, wb_pairs options) {
    if (failed) return state;
    wbuild_frontend_graph_own_file_op_t op = begin_files(&state);
    wb_text to = absolute(state.dir, path);
    wbuild_frontend_graph_method_file_op_remove(BORROWED(file_op, op), &to, &options);
    return end_files(state, op, wb_join(WB_TEXTS(WB("remove "), path)));
}

bool wb_exists(wb_state state, wb_text path) {
    wbuild_frontend_inspect_option_entry_t entry = {0};
    failure_t failure;
    if (failed || !state.some) return false;
    if (!wbuild_frontend_inspect_stat(&state.output, &path, NO_PAIRS, &entry, &failure)) wb_keep(&failure);
    return !failed && entry.is_some;
}

wb_text wb_read_file(wb_state state, wb_text path) {
    const uint32_t piece = 1 << 20;
    wb_text out = {0};
    while (!failed && state.some) {
        frontend_list_u8_t part;
        failure_t failure;
        if (!wbuild_frontend_inspect_read_file(&state.output, &path, out.len, piece, &part, &failure)) {
            wb_keep(&failure);
        } else if (part.len == 0) {
            break;
        } else {
            out = wb_join(WB_TEXTS(out, (wb_text){part.ptr, part.len}));
        }
    }
    return out;
}
