// wbuild for frontends in C, over the generated bindings (gen/frontend.h), without a standard library.
//
//   #include "wbuild/wbuild.h"
//
//   WB_FRONTEND(build) {
//       wb_platforms platforms = wb_target_platforms();
//       for (size_t i = 0; i < platforms.len; i++) {
//           wb_image image = wb_pull(WB("debian:12"), &platforms.ptr[i]);
//           image.state = wb_run(image.state, WB("echo hello > /hello"), NULL);
//           wb_yield_image(image, WB(""), &platforms.ptr[i]);
//       }
//   }
//
// Errors: the first failure is kept, whoever makes it; after it every function does nothing and
// answers something empty, and the build ends with it. Ask wb_failed() in loops that would not end.
//
// Memory is never given back: an instance lives for one build. Pointers may be NULL only where that is
// said. There is no C library but what libc/ declares: texts are joined with wb_join and said with wb_warn.

#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gen/frontend.h"

// ---- texts -----------------------------------------------------------------------------------

// Bytes with a length, UTF-8, not ended by a NUL.
typedef frontend_string_t wb_text;
typedef frontend_list_string_t wb_texts;
typedef wbuild_types_types_attrs_t wb_pairs;

// A text from a literal.
#define WB(literal) ((wb_text){(uint8_t *)(literal), sizeof(literal) - 1})
// Several, e.g. for wb_exec: WB_TEXTS(WB("ls"), WB("-l")).
#define WB_TEXTS(...) \
    ((wb_texts){(wb_text[]){__VA_ARGS__}, sizeof((wb_text[]){__VA_ARGS__}) / sizeof(wb_text)})

bool wb_equal(wb_text a, wb_text b);
bool wb_starts_with(wb_text text, wb_text prefix);
wb_text wb_trim(wb_text text);
wb_text wb_join(wb_texts parts);
// Up to the first byte of this value, which goes; `rest` is what follows it.
wb_text wb_cut(wb_text text, char at, wb_text *rest);
// The list with one more. The old one stays as it was.
wb_texts wb_append(wb_texts list, wb_text text);
wb_pairs wb_pair(wb_pairs list, wb_text key, wb_text value);
// The same, in place of what this key has.
wb_pairs wb_replace(wb_pairs list, wb_text key, wb_text value);

// ---- failures and places ---------------------------------------------------------------------

typedef wbuild_types_types_span_t wb_span;

// A text that failures can point into.
typedef struct wb_source {
    uint32_t id;
    wb_text name;
    wb_text text;
} wb_source;

wb_source wb_add_source(wb_text name, wb_text language, wb_text text);
// The place of a part of a source's text.
wb_span wb_span_of(const wb_source *source, wb_text part);
// The next line, without its line break; false at the end. `line` is empty before the first.
bool wb_next_line(const wb_source *source, wb_text *line);

// Ends the build; `at` and `help` may be NULL. Kinds are in wit/types.
void wb_fail(const char *kind, wb_text message, const wb_span *at, const char *help);
bool wb_failed(void);
// Keeps a failure that the host answered, at the present place if it has none; the first one counts.
void wb_keep(wbuild_types_types_failure_t *failure);
// Where nodes and failures of the host that follow come from. NULL: nowhere.
void wb_at(const wb_span *at);
void wb_warn(wb_text message, const wb_span *at);
void wb_log(wb_text line);

// ---- the graph -------------------------------------------------------------------------------

typedef wbuild_types_types_platform_t wb_platform;
typedef wbuild_frontend_request_list_platform_t wb_platforms;

// A file system, described. A value: a function answers a new one, and the old one stays as it was.
typedef struct wb_state {
    bool some; // else: nothing at all
    wbuild_frontend_graph_output_t output;
    wb_pairs env;
    wb_text dir;
    wb_text user;
    const wb_platform *platform;
    wb_texts history; // what its layers were made by
} wb_state;

wb_state wb_scratch(const wb_platform *platform);
wb_state wb_image_tree(wb_text reference, const wb_platform *platform, wb_pairs options);
wb_state wb_git(wb_text url, wb_text reference, wb_pairs options);
wb_state wb_http(wb_text url, wb_pairs options);
// A directory of the caller's; patterns to leave out, with the source they stand in or NULL.
wb_state wb_local(wb_text name, wb_texts exclude, const wb_source *source);
wb_state wb_merge(const wb_state *layers, size_t count);
wb_state wb_diff(wb_state lower, wb_state upper);

wb_state wb_env(wb_state state, wb_text name, wb_text value);
wb_state wb_dir(wb_state state, wb_text path);
wb_state wb_user(wb_state state, wb_text user);

typedef struct wb_mount {
    enum { WB_CACHE, WB_BIND, WB_TMPFS, WB_SECRET, WB_SSH } kind;
    wb_text target;
    wb_text id;           // of a cache, a secret, an agent
    wb_text sharing;      // of a cache: "shared" if empty
    const wb_state *from; // of a bind, or what a cache begins with
    wb_text path;         // of a bind: in `from`
    bool required;        // of a secret and an agent
    wb_pairs options;     // as of the functions of exec-op
} wb_mount;

typedef struct wb_run_options {
    wb_text name;
    wb_text network;
    bool no_cache;
    const wb_mount *mounts;
    size_t mount_count;
} wb_run_options;

// A command for /bin/sh -c; a program with arguments. Options may be NULL.
wb_state wb_run(wb_state state, wb_text command, const wb_run_options *options);
wb_state wb_exec(wb_state state, wb_texts args, const wb_run_options *options);

// Options are those of the functions of file-op. Relative targets are below the state's directory.
wb_state wb_copy(wb_state state, wb_state from, wb_text path, wb_text target, wb_pairs options);
wb_state wb_write(wb_state state, wb_text path, wb_text data, wb_pairs options);
wb_state wb_mkdir(wb_state state, wb_text path, wb_pairs options);
wb_state wb_remove(wb_state state, wb_text path, wb_pairs options);

// Looks at files now. False: there is nothing (and no failure).
bool wb_exists(wb_state state, wb_text path);
wb_text wb_read_file(wb_state state, wb_text path);

// ---- JSON: just enough for image configs -----------------------------------------------------

// The raw value of a key of an object; empty if there is none.
wb_text wb_json_get(wb_text object, wb_text key);
// The object with this raw value in place of what the key has; an empty value removes it.
wb_text wb_json_set(wb_text object, wb_text key, wb_text raw);
wb_text wb_json_string(wb_text text);
wb_text wb_json_strings(wb_texts texts);
// The texts of an array of strings.
wb_texts wb_json_texts(wb_text array);

// ---- the request -----------------------------------------------------------------------------

wb_source wb_definition(wb_text language);
// An option of the caller, or what is given here.
wb_text wb_option(wb_text name, wb_text otherwise);
wb_text wb_build_arg(wb_text name, wb_text otherwise);
wb_texts wb_targets(void);
wb_platforms wb_target_platforms(void);
wb_platform wb_build_platform(void);
// The files of the main context, without what .dockerignore names.
wb_state wb_context_files(void);

// ---- images ----------------------------------------------------------------------------------

typedef struct wb_image {
    wb_state state;
    wb_text config; // OCI image config, JSON
} wb_image;

// An image to begin with; "scratch" is nothing. A context of this name takes its place.
wb_image wb_pull(wb_text reference, const wb_platform *platform);
// A key of the inner config: wb_config(image, WB("Cmd"), wb_json_strings(...)).
wb_image wb_config(wb_image image, wb_text key, wb_text raw);
wb_image wb_label(wb_image image, wb_text key, wb_text value);
// The environment, directory and user of the state as those of the image.
wb_image wb_keep_context(wb_image image);
// Yields it; labels of the caller are set. The name "" is the image that names of the caller's are for.
void wb_yield_image(wb_image image, wb_text name, const wb_platform *platform);
void wb_yield_files(wb_state state, wb_text name, wb_text path);

// ---- the export ------------------------------------------------------------------------------

bool wb_finish(wbuild_types_types_failure_t *failure);

#define WB_FRONTEND(name)                                                              \
    static void name(void);                                                            \
    bool exports_wbuild_frontend_build_build(wbuild_types_types_failure_t *failure) {  \
        name();                                                                        \
        return wb_finish(failure);                                                     \
    }                                                                                  \
    static void name(void)
