// Memory without a standard library. An instance lives for one build and is thrown away, so nothing
// is given back: an allocation moves a pointer, and the memory of WebAssembly grows when it has to.

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 65536u

extern uint8_t __heap_base;
static uintptr_t next;
static uintptr_t end;

_Noreturn void abort(void) { __builtin_trap(); }

void *malloc(size_t size) {
    if (next == 0) {
        next = (uintptr_t)&__heap_base;
        end = (uintptr_t)__builtin_wasm_memory_size(0) * PAGE;
    }
    // Eight bytes in front hold the size, for realloc.
    uintptr_t at = ((next + 7) & ~(uintptr_t)7) + 8;
    if (size > UINT32_MAX - PAGE - at) abort();
    if (at + size > end) {
        size_t pages = (at + size - end + PAGE - 1) / PAGE;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) abort();
        end += pages * PAGE;
    }
    *(size_t *)(at - 8) = size;
    next = at + size;
    return (void *)at;
}

void *realloc(void *old, size_t size) {
    if (!old) return malloc(size);
    size_t had = *(size_t *)((uintptr_t)old - 8);
    if (size <= had) return old;
    void *memory = malloc(size);
    memcpy(memory, old, had);
    return memory;
}

void free(void *memory) { (void)memory; }

// With -mbulk-memory the compiler has instructions for the larger ones; these are for the rest, and
// must not become calls of themselves.
__attribute__((no_builtin)) void *memmove(void *to, const void *from, size_t size) {
    uint8_t *out = to;
    const uint8_t *in = from;
    if (out < in) {
        for (size_t at = 0; at < size; at++) out[at] = in[at];
    } else {
        for (size_t at = size; at > 0; at--) out[at - 1] = in[at - 1];
    }
    return to;
}

__attribute__((no_builtin)) void *memcpy(void *to, const void *from, size_t size) {
    uint8_t *out = to;
    const uint8_t *in = from;
    for (size_t at = 0; at < size; at++) out[at] = in[at];
    return to;
}

__attribute__((no_builtin)) void *memset(void *to, int value, size_t size) {
    uint8_t *out = to;
    for (size_t at = 0; at < size; at++) out[at] = (uint8_t)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t size) {
    const uint8_t *left = a, *right = b;
    for (size_t at = 0; at < size; at++) {
        if (left[at] != right[at]) return left[at] - right[at];
    }
    return 0;
}

__attribute__((no_builtin)) size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    return length;
}
