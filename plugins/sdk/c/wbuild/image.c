// The request, and images: see wbuild.h.

#include <stdlib.h>
#include <string.h>

#include "wbuild.h"

typedef wbuild_types_types_failure_t failure_t;
typedef wbuild_frontend_request_borrow_named_context_t context_t;

// ---- the request -----------------------------------------------------------------------------

wb_source wb_definition(wb_text language) {
    wbuild_frontend_request_definition_file_t file;
    failure_t failure;
    if (!wbuild_frontend_request_definition(&file, &failure)) {
        wb_keep(&failure);
        return (wb_source){0};
    }
    return wb_add_source(file.name, language, (wb_text){file.data.ptr, file.data.len});
}

wb_text wb_option(wb_text name, wb_text otherwise) {
    wb_text value;
    return wbuild_frontend_request_opt(&name, &value) ? value : otherwise;
}

wb_text wb_build_arg(wb_text name, wb_text otherwise) {
    return wb_option(wb_join(WB_TEXTS(WB("build-arg:"), name)), otherwise);
}

wb_texts wb_targets(void) {
    wb_texts targets;
    wbuild_frontend_request_targets(&targets);
    return targets;
}

wb_platforms wb_target_platforms(void) {
    wb_platforms platforms;
    wbuild_frontend_request_target_platforms(&platforms);
    return platforms;
}

wb_platform wb_build_platform(void) {
    wb_platform platform;
    wbuild_frontend_request_build_platform(&platform);
    return platform;
}

// A context of the caller's; false if there is none of this name.
static bool find_context(wb_text name, const wb_platform *platform, context_t *context) {
    wbuild_frontend_request_option_own_named_context_t found = {0};
    failure_t failure;
    if (wb_failed()) return false;
    if (!wbuild_frontend_request_context(&name, (wb_platform *)platform, &found, &failure)) {
        wb_keep(&failure);
        return false;
    }
    if (found.is_some) *context = (context_t){found.val.__handle};
    return found.is_some;
}

// The patterns of an ignore file, as parts of its text.
static wb_texts ignored(const wb_source *file) {
    wb_texts patterns = {0};
    wb_text line = {0};
    while (wb_next_line(file, &line)) {
        wb_text pattern = wb_trim(line);
        if (!pattern.len || line.ptr[0] == '#') continue;
        // "!" stays in front of what is behind it; a "/" in front says nothing.
        if (pattern.len > 1 && pattern.ptr[0] == '/') pattern.ptr++, pattern.len--;
        if (!wb_equal(pattern, WB("."))) patterns = wb_append(patterns, pattern);
    }
    return patterns;
}

wb_state wb_context_files(void) {
    context_t context;
    wb_state state = wb_scratch(NULL);
    if (find_context(WB("context"), NULL, &context)) {
        // One that is no directory of the caller's is there already.
        state.some = wbuild_frontend_request_method_named_context_root(context, &state.output);
        if (state.some) return state;
    }
    wb_state all = wb_local(WB("context"), (wb_texts){0}, NULL);
    wb_text name = WB(".dockerignore");
    if (!wb_exists(all, name)) return all;
    wb_source file = wb_add_source(name, WB("dockerignore"), wb_read_file(all, name));
    return wb_local(WB("context"), ignored(&file), &file);
}

// ---- images ----------------------------------------------------------------------------------

static wb_text platform_config(const wb_platform *platform) {
    wb_text config = wb_json_set(WB("{}"), WB("architecture"), wb_json_string(platform->architecture));
    config = wb_json_set(config, WB("os"), wb_json_string(platform->os));
    if (platform->variant.is_some) {
        config = wb_json_set(config, WB("variant"), wb_json_string(platform->variant.val));
    }
    return wb_json_set(config, WB("config"), WB("{}"));
}

// The variables, directory and user that commands in this image have.
static wb_image based(wb_state state, wb_text config) {
    wb_text inner = wb_json_get(config, WB("config"));
    wb_texts variables = wb_json_texts(wb_json_get(inner, WB("Env")));
    for (size_t i = 0; i < variables.len; i++) {
        wb_text value, name = wb_cut(variables.ptr[i], '=', &value);
        state = wb_env(state, name, value);
    }
    wb_texts single = wb_json_texts(wb_join(
        WB_TEXTS(WB("["), wb_json_get(inner, WB("WorkingDir")), WB("]"))));
    if (single.len && single.ptr[0].len) state.dir = single.ptr[0];
    single = wb_json_texts(wb_join(WB_TEXTS(WB("["), wb_json_get(inner, WB("User")), WB("]"))));
    if (single.len) state.user = single.ptr[0];
    // The host lists the layers itself.
    return (wb_image){state, wb_json_set(config, WB("rootfs"), WB(""))};
}

wb_image wb_pull(wb_text reference, const wb_platform *platform) {
    wb_image nothing = {wb_scratch(platform), platform_config(platform)};
    if (wb_failed() || wb_equal(reference, WB("scratch"))) return nothing;
    wbuild_frontend_inspect_image_request_t request = {.reference = reference};
    request.platform.is_some = true;
    request.platform.val = *platform;
    context_t context;
    if (find_context(reference, platform, &context)) {
        wb_text kind, config;
        wbuild_frontend_request_method_named_context_kind(context, &kind);
        if (wb_equal(kind, WB("input"))) {
            wb_state state = nothing.state;
            state.some = wbuild_frontend_request_method_named_context_root(context, &state.output);
            bool has = wbuild_frontend_request_method_named_context_config(context, &config);
            return based(state, has ? config : nothing.config);
        }
        if (!wb_equal(kind, WB("image")) && !wb_equal(kind, WB("oci-layout"))) {
            wb_fail("invalid", wb_join(WB_TEXTS(WB("the context "), reference, WB(" is no image but "), kind)), NULL, NULL);
            return nothing;
        }
        wbuild_frontend_request_method_named_context_identifier(context, &request.reference);
        wbuild_frontend_request_method_named_context_attrs(context, &request.attrs);
    }
    wbuild_frontend_inspect_list_image_request_t requests = {&request, 1};
    wbuild_frontend_inspect_list_result_image_info_failure_t answers;
    wbuild_frontend_inspect_resolve_images(&requests, &answers);
    if (answers.ptr[0].is_err) {
        wb_keep(&answers.ptr[0].val.err);
        return nothing;
    }
    wbuild_frontend_inspect_image_info_t *info = &answers.ptr[0].val.ok;
    return based(wb_image_tree(info->reference, platform, request.attrs), info->config);
}

wb_image wb_config(wb_image image, wb_text key, wb_text raw) {
    wb_text inner = wb_json_get(image.config, WB("config"));
    if (!inner.len || inner.ptr[0] != '{') inner = WB("{}");
    image.config = wb_json_set(image.config, WB("config"), wb_json_set(inner, key, raw));
    return image;
}

wb_image wb_label(wb_image image, wb_text key, wb_text value) {
    wb_text labels = wb_json_get(wb_json_get(image.config, WB("config")), WB("Labels"));
    if (!labels.len || labels.ptr[0] != '{') labels = WB("{}");
    return wb_config(image, WB("Labels"), wb_json_set(labels, key, wb_json_string(value)));
}

wb_image wb_keep_context(wb_image image) {
    wb_texts variables = {0};
    for (size_t i = 0; i < image.state.env.len; i++) {
        wb_text parts[] = {image.state.env.ptr[i].f0, WB("="), image.state.env.ptr[i].f1};
        variables = wb_append(variables, wb_join((wb_texts){parts, 3}));
    }
    image = wb_config(image, WB("Env"), variables.len ? wb_json_strings(variables) : WB(""));
    image = wb_config(image, WB("WorkingDir"), wb_json_string(image.state.dir));
    return wb_config(image, WB("User"), image.state.user.len ? wb_json_string(image.state.user) : WB(""));
}

// The history of the base, and one entry for each layer since.
static wb_text with_history(wb_image image) {
    wb_text history = wb_json_get(image.config, WB("history"));
    bool begun = history.len > 2 && history.ptr[0] == '[';
    wb_text out = begun ? (wb_text){history.ptr, history.len - 1} : WB("[");
    for (size_t i = 0; i < image.state.history.len; i++) {
        wb_text entry = wb_json_set(WB("{}"), WB("created_by"), wb_json_string(image.state.history.ptr[i]));
        out = wb_join(WB_TEXTS(out, begun || i ? WB(",") : WB(""), entry));
    }
    return wb_json_set(image.config, WB("history"), wb_join(WB_TEXTS(out, WB("]"))));
}

void wb_yield_image(wb_image image, wb_text name, const wb_platform *platform) {
    if (wb_failed()) return;
    wb_pairs labels;
    wbuild_frontend_request_opts(&WB("label:"), &labels);
    for (size_t i = 0; i < labels.len; i++) image = wb_label(image, labels.ptr[i].f0, labels.ptr[i].f1);
    wb_text config = image.state.history.len ? with_history(image) : image.config;
    wb_pairs none = {0};
    failure_t failure;
    if (!wbuild_frontend_results_image(&name, (wb_platform *)platform,
                                       image.state.some ? &image.state.output : NULL, &config, &none, &failure)) {
        wb_keep(&failure);
    }
}

void wb_yield_files(wb_state state, wb_text name, wb_text path) {
    wb_pairs none = {0};
    failure_t failure;
    if (wb_failed() || !state.some) return;
    if (!wbuild_frontend_results_files(&name, NULL, &state.output, &path, &none, &failure)) wb_keep(&failure);
}
