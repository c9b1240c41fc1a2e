// A frontend: it reads a definition and describes the image that is to be made. Nothing runs here;
// wbuild runs what the result needs, and remembers it.
//
// The definition is lines of a word and a text, see example/definition.

#include "wbuild/wbuild.h"

static void line(wb_image *image, wb_text word, wb_text text, const wb_span *at, const wb_platform *platform) {
    if (wb_equal(word, WB("base"))) {
        *image = wb_pull(text, platform);
    } else if (wb_equal(word, WB("run"))) {
        image->state = wb_run(image->state, text, NULL);
    } else if (wb_equal(word, WB("files"))) {
        image->state = wb_copy(image->state, wb_context_files(), text, WB("/app/"), (wb_pairs){0});
    } else if (wb_equal(word, WB("start"))) {
        wb_texts command = WB_TEXTS(WB("/bin/sh"), WB("-c"), text);
        *image = wb_config(*image, WB("Cmd"), wb_json_strings(command));
        *image = wb_config(*image, WB("WorkingDir"), wb_json_string(WB("/app")));
    } else {
        wb_fail("invalid", wb_join(WB_TEXTS(word, WB(" is no word that begins a line"))), at,
                "there are base, run, files, start");
    }
}

WB_FRONTEND(build) {
    wb_source source = wb_definition(WB("@NAME@"));
    wb_platforms platforms = wb_target_platforms();
    // Once for every platform that the user wants. The first failure ends the build, and what is called
    // after it does nothing.
    for (size_t i = 0; i < platforms.len; i++) {
        wb_image image = wb_pull(WB("scratch"), &platforms.ptr[i]);
        wb_text next = {0};
        while (wb_next_line(&source, &next)) {
            if (!wb_trim(next).len || wb_starts_with(next, WB("#"))) continue;
            wb_text text, word = wb_cut(next, ' ', &text);
            wb_span at = wb_span_of(&source, next);
            // What fails from here on, now or when the step runs, is shown at the line.
            wb_at(&at);
            line(&image, word, wb_trim(text), &at, &platforms.ptr[i]);
        }
        wb_at(NULL);
        wb_yield_image(image, WB(""), &platforms.ptr[i]);
    }
}
