// A frontend that reads lines of a word and its arguments and makes an image of them: see README.md.

#include "wbuild/wbuild.h"

static void line(wb_image *image, const wb_source *source, wb_text text, const wb_platform *platform) {
    wb_text rest, word = wb_cut(text, ' ', &rest);
    rest = wb_trim(rest);
    wb_span at = wb_span_of(source, word);
    wb_state *state = &image->state;
    bool known = true;
    if (!rest.len) {
        wb_fail("invalid", wb_join(WB_TEXTS(word, WB(" says nothing"))), &at, NULL);
    } else if (wb_equal(word, WB("from"))) {
        *image = wb_pull(rest, platform);
    } else if (wb_equal(word, WB("run"))) {
        *state = wb_run(*state, rest, NULL);
    } else if (wb_equal(word, WB("copy"))) {
        wb_text target, path = wb_cut(rest, ' ', &target);
        target = wb_trim(target);
        *state = wb_copy(*state, wb_context_files(), path, target.len ? target : WB("."), (wb_pairs){0});
    } else if (wb_equal(word, WB("env"))) {
        wb_text value, name = wb_cut(rest, '=', &value);
        *state = wb_env(*state, wb_trim(name), wb_trim(value));
    } else if (wb_equal(word, WB("dir"))) {
        *state = wb_mkdir(wb_dir(*state, rest), WB("."), (wb_pairs){0});
    } else if (wb_equal(word, WB("user"))) {
        *state = wb_user(*state, rest);
    } else if (wb_equal(word, WB("label"))) {
        wb_text value, name = wb_cut(rest, '=', &value);
        *image = wb_label(*image, wb_trim(name), wb_trim(value));
    } else if (wb_equal(word, WB("start"))) {
        *image = wb_config(*image, WB("Cmd"), wb_json_strings(WB_TEXTS(WB("/bin/sh"), WB("-c"), rest)));
    } else {
        known = false;
    }
    if (!known) {
        wb_fail("invalid", wb_join(WB_TEXTS(word, WB(" is no word that begins a line"))), &at,
                "there are from, run, copy, env, dir, user, label and start");
    }
}

WB_FRONTEND(build) {
    wb_source source = wb_definition(WB("tiny"));
    wb_platforms platforms = wb_target_platforms();
    for (size_t i = 0; i < platforms.len && !wb_failed(); i++) {
        const wb_platform *platform = &platforms.ptr[i];
        wb_image image = wb_pull(WB("scratch"), platform);
        wb_text next = {0};
        while (wb_next_line(&source, &next)) {
            wb_text text = wb_trim(next);
            if (!text.len || text.ptr[0] == '#') continue;
            wb_span at = wb_span_of(&source, text);
            wb_at(&at);
            line(&image, &source, text, platform);
        }
        wb_at(NULL);
        wb_yield_image(wb_keep_context(image), WB(""), platform);
    }
}
