/* SPDX-License-Identifier: MIT */
/*
 * Runs a target over files, without libFuzzer: any compiler builds it, so that every test
 * run meets the seeds and what was ever found.
 *
 *	TARGET [FILE | DIRECTORY]...
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static unsigned n_run;

static int run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *bytes = NULL;
	long n;

	if (!file || fseek(file, 0, SEEK_END) || (n = ftell(file)) < 0) {
		perror(path);
		return 1;
	}
	rewind(file);
	bytes = malloc((size_t)n ? (size_t)n : 1);	/* exactly: reading beyond is caught */
	if (!bytes || fread(bytes, 1, (size_t)n, file) != (size_t)n) {
		perror(path);
		exit(1);
	}
	fclose(file);
	LLVMFuzzerTestOneInput(bytes, (size_t)n);
	n_run++;
	free(bytes);
	return 0;
}

static int run_directory(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	char name[4096];
	int failed = 0;

	if (!directory) {
		return 0;		/* nothing was ever found there */
	}
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] != '.') {
			snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
			failed |= run_file(name);
		}
	}
	closedir(directory);
	return failed;
}

int main(int argc, char **argv)
{
	int failed = 0;

	for (int i = 1; i < argc; i++) {
		struct stat facts;

		if (stat(argv[i], &facts) == 0 && !S_ISDIR(facts.st_mode)) {
			failed |= run_file(argv[i]);
		} else {
			failed |= run_directory(argv[i]);
		}
	}
	printf("cases: %u passed, %d failed, 0 skipped\n", n_run, failed);
	return failed || !n_run;
}
