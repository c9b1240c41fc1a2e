/* Says where it runs: the files of its root directory, which are few. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(void)
{
    struct dirent **entries;
    int count = scandir("/", &entries, visible, alphasort);
    if (count < 0) {
        perror("cannot list /");
        return EXIT_FAILURE;
    }
    printf("%s. I am process %d of user %d; my root holds", GREETING, (int)getpid(), (int)getuid());
    for (int i = 0; i < count; i++)
        printf(" %s", entries[i]->d_name);
    printf(".\n");
    return EXIT_SUCCESS;
}
