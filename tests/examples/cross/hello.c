#include <stdio.h>
#include <sys/utsname.h>

int main(void)
{
    struct utsname name;

    if (uname(&name) != 0)
        return 1;
    printf("hello from %s, with pointers of %zu bits\n", name.machine, 8 * sizeof(void *));
    return 0;
}
