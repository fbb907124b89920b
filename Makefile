# millrace: `make help` lists the targets; README.md begins with two of them.
#
# Everything that is built goes to BUILD: one static library a layer, one binary from all of them, one test binary for each file
# of tests/unit. The targets that a person types on a fresh machine (run, test, bench) first see to the packages and then call make
# again, because the flags below come from pkg-config, which a fresh machine does not have. V=1 shows the commands.
BUILD ?= build
ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
PYTHON ?= /usr/bin/python3
MAKEFLAGS += --no-print-directory --no-builtin-rules

# Layers, lowest first; a layer's tests link that layer and those below it. docs/ARCHITECTURE.md says who may include whom.
LAYERS := base config proto dataset model estimate coordinator workers cli
PACKAGES := libzmq libzstd libprotobuf-c openblas yaml-0.1 sqlite3 jansson libxxhash libcrypto libarchive libcurl zlib liblzma \
  libutf8proc libpcre2-8

# The pthread build of OpenBLAS whatever Debian's alternatives point at: the serial one races, the OpenMP one brings its own threads.
# It is not linked: model/kernels/openblas.c loads it from its folder when the portable kernels are used.
pkg-config = $(shell PKG_CONFIG_PATH="$(firstword $(wildcard /usr/lib/*/openblas-pthread/pkgconfig)):$$PKG_CONFIG_PATH" \
  pkg-config $(1) 2>/dev/null)
PACKAGE_CFLAGS := $(call pkg-config,--cflags $(PACKAGES))
PACKAGE_LIBS := $(call pkg-config,--libs $(filter-out openblas,$(PACKAGES)))
OPENBLAS_FOLDER := $(call pkg-config,--variable=libdir openblas)

# What the compiler and the linker can do against damage. FORTIFY wants an optimised build, and hides faults from the sanitizers.
HARDEN := -fstack-protector-strong -fPIE $(if $(or $(findstring -O0,$(CFLAGS)),$(findstring sanitize,$(CFLAGS))),,-D_FORTIFY_SOURCE=2)
HARDEN_LINK := -pie -Wl,-z,relro,-z,now
# No contraction and no fast-math anywhere: bits must not depend on what the compiler felt like (docs/ARCHITECTURE.md).
FLAGS := $(strip $(CFLAGS) $(HARDEN) -std=c17 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wstrict-prototypes \
  -Wmissing-prototypes -Wvla -Wno-psabi -fno-fast-math -ffp-contract=off -fno-strict-aliasing -pthread -I. -I$(BUILD) $(PACKAGE_CFLAGS) \
  $(OPENBLAS_FOLDER:%=-DOPENBLAS_FOLDER='"%"'))
LIBS := $(HARDEN_LINK) $(PACKAGE_LIBS) -lbz2 -lm -pthread

# Targets for people have a comment after ##, which `make help` shows; tests/repo checks that none is forgotten.
.DEFAULT_GOAL := all
.PHONY: all run test outside setup unit-tests sim debug asan tsan valgrind fuzz mutants fmt lint docs install clean help
.PHONY: bench bench-train bench-quality bench-tokenizer bench-dataset bench-memory bench-kills bench-loop
.DELETE_ON_ERROR:

all: $(BUILD)/millrace ## build build/millrace (the default)

ifeq ($(V),)
quiet := @
say = @printf '  %-9s%s\n' $(1) '$(2)'
else
say = @:
endif

# ---- What an output depends on beside its sources ----------------------------------------------------------------------------
# $(eval $(call record,FILE,VARIABLE)) makes FILE hold the variable's text. It is remade exactly when the text differs, and is then newer
# than what was built from the old one: other flags rebuild everything, a source that came or went rebuilds its layer's library.
define record
ifneq ($$(strip $$(file <$(1))),$$(strip $$($(2))))
$(1): force
endif
$(1):
	@mkdir -p $$(@D) && printf '%s\n' '$$(subst ','\'',$$(strip $$($(2))))' > $$@
endef
.PHONY: force
force:
FLAGS_USED := $(BUILD)/flags
COMMAND := $(CC) $(FLAGS) $(LDFLAGS) $(LIBS)
$(eval $(call record,$(FLAGS_USED),COMMAND))

sources = $(sort $(wildcard $(1)/*.c $(1)/*/*.c))
objects = $(patsubst %.c,$(BUILD)/%.o,$(call sources,$(1)))

# ---- Objects and libraries ---------------------------------------------------------------------------------------------------
SCHEMAS := millrace dataset

$(BUILD)/%.o: %.c Makefile $(FLAGS_USED) | $(BUILD)/packages-there $(SCHEMAS:%=$(BUILD)/proto/%.pb-c.h)
	@mkdir -p $(@D)
	$(call say,compile,$<)
	$(quiet)$(CC) $(FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/packages-there:
	@mkdir -p $(@D)
	@command -v pkg-config >/dev/null && pkg-config --exists --print-errors $(PACKAGES) && command -v protoc-c >/dev/null || \
	  { echo "libraries or tools are missing; run 'make setup' (docs/DEPENDENCIES.md lists them)" >&2; exit 1; }
	@touch $@

# proto/NAME.proto -> C
GENERATED := $(foreach s,$(SCHEMAS),$(BUILD)/proto/$(s).pb-c.c $(BUILD)/proto/$(s).pb-c.h)
$(GENERATED) &: $(SCHEMAS:%=proto/%.proto) | $(BUILD)/packages-there
	@mkdir -p $(BUILD)/proto
	$(call say,protoc-c,$^)
	$(quiet)protoc-c --proto_path=proto --c_out=$(BUILD)/proto $(SCHEMAS:%=%.proto)
$(SCHEMAS:%=$(BUILD)/proto/%.pb-c.o): %.o: %.c %.h $(FLAGS_USED)
	$(quiet)$(CC) $(filter-out -Wmissing-prototypes,$(FLAGS)) -c $< -o $@
$(BUILD)/libproto.a: $(SCHEMAS:%=$(BUILD)/proto/%.pb-c.o)

# The vocabulary travels inside the binary.
$(BUILD)/dataset/tokenizer/gpt2_vocab.o: dataset/tokenizer/gpt2_vocab.bpe $(FLAGS_USED)
	@mkdir -p $(@D)
	$(call say,embed,$<)
	$(quiet)printf '%s\n' '.section .rodata' '.global gpt2_vocab_bpe, gpt2_vocab_bpe_end' 'gpt2_vocab_bpe: .incbin "$<"' \
	  'gpt2_vocab_bpe_end: .byte 0' '.section .note.GNU-stack,"",@progbits' | $(CC) -c -x assembler - -o $@
$(BUILD)/libdataset.a: $(BUILD)/dataset/tokenizer/gpt2_vocab.o

define layer
$(1).sources := $(call sources,$(1))
$(call record,$(BUILD)/$(1).sources,$(1).sources)
$(BUILD)/lib$(1).a: $(call objects,$(1)) $(BUILD)/$(1).sources
	$$(call say,library,$$(@F))
	@rm -f $$@ && ar rcs $$@ $$(filter %.o,$$^)
endef
$(foreach l,$(LAYERS),$(eval $(call layer,$(l))))

libraries = $(patsubst %,$(BUILD)/lib%.a,$(1))
link = $(quiet)mkdir -p $(@D) && $(CC) $(FLAGS) $(LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
  $(LIBS) $(1) -o $@

$(BUILD)/millrace: $(call objects,cli) $(call libraries,$(filter-out cli,$(LAYERS))) $(BUILD)/cli.sources
	$(call say,link,$@)
	$(call link)

# ---- Unit tests: tests/unit/LAYER/NAME.c -> BUILD/tests/LAYER/NAME -----------------------------------------------------------
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/unit/*/*.c)))
up_to = $(if $(filter $(1),$(firstword $(2))),$(1),$(firstword $(2)) $(call up_to,$(1),$(wordlist 2,99,$(2))))
define layer_tests
$(BUILD)/tests/$(1)/%: $(BUILD)/tests/unit/$(1)/%.o $(call libraries,$(call up_to,$(1),$(LAYERS))) Makefile $(FLAGS_USED)
	$$(call say,test,$$@)
	$$(call link,-lcmocka)
endef
$(foreach l,$(LAYERS),$(eval $(call layer_tests,$(l))))

# This one looks over the shoulder of whatever computes long: which lock is held meanwhile?
comma := ,
$(BUILD)/tests/workers/learner: override LDFLAGS += \
  $(addprefix -Wl$(comma)--wrap=,pool_run vector_add optimizer_begin mem_try feed_sequence)
# This one has a work thread that hangs, takes hold of its worker, and like the next ones has no memory for a message.
$(BUILD)/tests/workers/agent: override LDFLAGS += $(addprefix -Wl$(comma)--wrap=,self_test work_main frame_pack link_send)
$(BUILD)/tests/coordinator/serve: override LDFLAGS += -Wl,--wrap=frame_pack
$(BUILD)/tests/proto/body $(BUILD)/tests/proto/frame $(BUILD)/tests/proto/link: override LDFLAGS += -Wl,--wrap=malloc
$(BUILD)/tests/proto/frame: override LDFLAGS += -Wl,--wrap=realloc
$(BUILD)/tests/proto/endpoint: override LDFLAGS += -Wl,--wrap=getaddrinfo
$(BUILD)/tests/proto/admission: override LDFLAGS += -Wl,--wrap=pthread_create
# This one counts what is allocated.
$(BUILD)/tests/model/allocations: override LDFLAGS += $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc aligned_alloc)
# This one counts how often a tensor is looked up.
$(BUILD)/tests/model/foreign: override LDFLAGS += -Wl,--wrap=tensor_map_find
# This one's records are in their place or not, as it says.
$(BUILD)/tests/coordinator/place: override LDFLAGS += -Wl,--wrap=store_in_place
# This one's records take as long as it says.
$(BUILD)/tests/coordinator/pause: override LDFLAGS += $(addprefix -Wl$(comma)--wrap=,store_event store_in_place)
# This one has no memory for a message when it says so.
$(BUILD)/tests/coordinator/dispatch: override LDFLAGS += -Wl,--wrap=body_unpack
# This one has a file system without locks, and sees how rows are found.
$(BUILD)/tests/coordinator/store: override LDFLAGS += $(addprefix -Wl$(comma)--wrap=,flock sqlite3_prepare_v2)
# This one's files are of another device than their mount.
$(BUILD)/tests/cli/status_file: override LDFLAGS += -Wl,--wrap=stat
# These have folders that cannot be read to their ends.
$(BUILD)/tests/base/file $(BUILD)/tests/dataset/sources $(BUILD)/tests/model/checkpoint: override LDFLAGS += -Wl,--wrap=readdir
# This one's clock moves when somebody sleeps.
$(BUILD)/tests/dataset/http: override LDFLAGS += $(addprefix -Wl$(comma)--wrap=,clock_ms clock_sleep_ms)
# This one writes to what is being copied, and has a folder that cannot be removed.
$(BUILD)/tests/coordinator/store_copy: override LDFLAGS += $(addprefix -Wl$(comma)--wrap=,file_copy_bytes folder_remove)
# This one has files that cannot be opened or read for a time.
$(BUILD)/tests/coordinator/tokenizing: override LDFLAGS += $(addprefix -Wl$(comma)--wrap=,file_open file_read_at)

# ---- Fuzzers: tests/fuzz/NAME.c -> BUILD/tests/fuzz/NAME ---------------------------------------------------------------------
FUZZ_MAIN := tests/fuzz/driver.c
FUZZERS := $(patsubst %.c,$(BUILD)/%,$(filter-out tests/fuzz/driver.c tests/fuzz/libfuzzer.c,$(sort $(wildcard tests/fuzz/*.c))))
$(FUZZERS): %: %.o $(BUILD)/$(FUZZ_MAIN:.c=.o) $(call libraries,base config proto dataset model estimate coordinator workers) Makefile
	$(call say,fuzzer,$@)
	$(call link)

# Processes that do not keep to the protocol, for the tests of whole runs.
HOSTILE := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/hostile/*.c)))
$(HOSTILE): %: %.o $(call libraries,base config proto) Makefile $(FLAGS_USED)
	$(call say,test,$@)
	$(call link)

# Objects of their own: a change below links the tests anew and compiles none of them.
TEST_OBJECTS := $(UNIT_TESTS:$(BUILD)/tests/%=$(BUILD)/tests/unit/%.o) \
  $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/fuzz/*.c tests/hostile/*.c tests/bench/*.c))
.SECONDARY: $(TEST_OBJECTS)

unit-tests: $(UNIT_TESTS) $(FUZZERS) $(HOSTILE) ## build the unit tests, the fuzzers and hostile peers, without running them

# The simulation is headers, for `make sim` and for a short run among the unit tests. It links the shipped code; what knows how large a
# segment, a frame or a portion of bytes is is compiled once more, with small ones. The linker puts the simulation's functions before those
# that start threads, wait, write to the disk or compute long, and between the coordinator's files (tests/sim).
SMALL := $(BUILD)/small
SMALL_SIZES := SEGMENT_ELEMENTS=16 FRAME_TOKENS=16 INGEST_TEXT_BYTES=250 RUN_BLOCK_BYTES=256 READER_BYTES_MAX=128 READ_BYTES_MAX=128 \
  EVALUATE_SEQUENCES=2 RUN_WINDOW_BYTES=128
SMALL_NAMES := $(foreach s,$(SMALL_SIZES),-e $(firstword $(subst =, ,$(s))))
SMALL_OBJECTS := $(patsubst %.c,$(SMALL)/%.o,$(shell grep -ls $(SMALL_NAMES) $(foreach l,proto dataset model coordinator workers,\
  $(l)/*.c $(l)/*/*.c)))
SIM_WRAPPED := pthread_create pthread_join pthread_detach pthread_cond_timedwait pthread_cond_wait pthread_cond_signal \
  pthread_cond_broadcast getpid kill getrandom machine_memory machine_peak_rss_bytes open pwrite posix_fallocate fsync rename renameat2 \
  link mkdir unlink remove ftruncate fopen fflush fclose statvfs session_counts gpt2_open gpt2_close gpt2_on_tick gpt2_parameters \
  gpt2_tensor_count gpt2_tensors gpt2_decayed gpt2_init_part gpt2_init_parts gpt2_gradient gpt2_loss self_test tokenizer_parse \
  tokenizer_close ingest_run shard_build vector_add optimizer_apply state_digest parts_open parts_close trainer_open trainer_action \
  trainer_applied trainer_save store_event store_step_add store_steps_supersede store_commit store_evaluation_add checkpoint_seal \
  checkpoint_publish roster_send_home
$(SMALL)/%.o: %.c Makefile $(FLAGS_USED) | $(BUILD)/packages-there $(SCHEMAS:%=$(BUILD)/proto/%.pb-c.h)
	@mkdir -p $(@D)
	$(call say,compile,$< with small segments)
	$(quiet)$(CC) $(FLAGS) $(addprefix -D,$(SMALL_SIZES)) -MMD -MP -c $< -o $@
SIMULATIONS := $(BUILD)/tests/sim/main $(BUILD)/tests/workers/simulation
$(BUILD)/tests/sim/main: $(SMALL)/tests/sim/main.o
$(BUILD)/tests/workers/simulation: $(SMALL)/tests/unit/workers/simulation.o
$(SIMULATIONS): $(SMALL_OBJECTS) $(call libraries,$(filter-out cli,$(LAYERS))) Makefile
	$(call say,test,$@)
	$(call link,-lcmocka $(addprefix -Wl$(comma)--wrap=,$(SIM_WRAPPED)))
sim: $(BUILD)/tests/sim/main ## simulate disasters of training (SEED=n, SCENARIOS=n, TRACE=1 shows all that happens)
	@$(if $(SEED),MILLRACE_TEST_SEED=$(SEED)) $(if $(SCENARIOS),SCENARIOS=$(SCENARIOS)) $(if $(TRACE),MILLRACE_TEST_TRACE=1) $<

# ---- What a person types -----------------------------------------------------------------------------------------------------
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
# What takes long comes first: several files are tested at once (tests/lanes.py).
TEST_FOLDERS = $(wildcard tests/e2e tests/fuzz tests/repo tests/unit)
pytest = PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 MILLRACE_BUILD=$(abspath $(1)) $(PYTHON) -B -m pytest -c tests/pytest.ini

run: ## set this machine up, build, fetch the example text, run pipeline.yaml (ARGS="--workers 3")
	@deploy/setup.sh run
	@$(MAKE) $(JOBS) all
	@deploy/example-corpus.sh corpus
	@$(BUILD)/millrace run pipeline.yaml $(ARGS)

test: ## set this machine up, build, run every test (TESTS=part_of_a_name for some)
	@deploy/setup.sh run test
	@$(MAKE) $(JOBS) all unit-tests
	@$(call pytest,$(BUILD)) $(TEST_FOLDERS) $(if $(TESTS),-k '$(TESTS)')

# Programs from PyPI live in a virtual environment of their own, which is made once and again when its list changes.
OUTSIDE := $(BUILD)/outside
outside: ## set this machine up, build, try what we write and read with programs from PyPI: 3 GB of them (TESTS=part_of_a_name)
	@deploy/setup.sh run outside
	@$(MAKE) $(JOBS) all $(OUTSIDE)/there
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 MILLRACE_BUILD=$(abspath $(BUILD)) $(OUTSIDE)/bin/python -B -m pytest -c tests/pytest.ini \
	  tests/outside $(if $(TESTS),-k '$(TESTS)')
$(OUTSIDE)/there: tests/outside/requirements.txt
	$(call say,install,$<)
	$(quiet)$(PYTHON) -m venv $(OUTSIDE) && $(OUTSIDE)/bin/pip install --quiet --disable-pip-version-check -r $< && touch $@

setup: ## install what building, running and testing need (Debian packages)
	@deploy/setup.sh run test

debug: ## build build/debug/millrace, unoptimised
	@$(MAKE) $(JOBS) BUILD=$(BUILD)/debug CFLAGS="-O0 -g" all

SANITIZE := -O1 -g -fno-omit-frame-pointer
asan: ## build and run the unit tests and fuzzers under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) $(JOBS) BUILD=$(BUILD)/asan LDFLAGS=-fsanitize=address,undefined \
	  CFLAGS="$(SANITIZE) -fsanitize=address,undefined -fno-sanitize-recover=undefined" unit-tests
	@ASAN_OPTIONS=allocator_may_return_null=1 MILLRACE_TEST_PATIENCE=5 \
	  $(call pytest,$(BUILD)/asan) tests/unit tests/fuzz $(if $(TESTS),-k '$(TESTS)')

# Address randomisation off: gcc 12's runtime does not know the wider layout of newer kernels. Code that is not instrumented (ZeroMQ,
# OpenBLAS) synchronises in ways the tool cannot see and is left out; tests/tsan.txt has what it calls of ours.
tsan: ## build and run the unit tests under ThreadSanitizer
	@$(MAKE) $(JOBS) BUILD=$(BUILD)/tsan LDFLAGS=-fsanitize=thread CFLAGS="$(SANITIZE) -fsanitize=thread" unit-tests
	@TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1 allocator_may_return_null=1 suppressions=$(abspath tests/tsan.txt)" \
	  MILLRACE_TEST_PATIENCE=10 MILLRACE_TEST_WRAPPER="setarch -R" \
	  $(call pytest,$(BUILD)/tsan) tests/unit $(if $(TESTS),-k '$(TESTS)')

# The sets of kernels that valgrind can run: it has no AVX-512. Most files run every set by themselves and need no second round.
# Three files would take longer than all others together. They train more and compare digests; golden goes through the same code.
VALGRIND := valgrind --quiet --fair-sched=yes --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite --num-callers=20
VALGRIND_avx2 = $(filter-out %/bad_numbers.c %/curve.c %/same_bits.c,$(wildcard tests/unit/model/*.c))
VALGRIND_portable = $(patsubst %,tests/unit/model/%.c,golden generate)
valgrind: ## run the model's unit tests under valgrind, by the kernels of avx2 and of portable
	@deploy/setup.sh run test develop
	@$(MAKE) $(JOBS) unit-tests
	@$(MAKE) valgrind-avx2 valgrind-portable
# With TESTS, portable may have none of them: pytest then ends with 5.
valgrind-%:
	@echo "valgrind: MILLRACE_KERNELS=$*"
	@MILLRACE_KERNELS=$* MILLRACE_TEST_PATIENCE=20 MILLRACE_TEST_WRAPPER="$(VALGRIND)" $(call pytest,$(BUILD)) \
	  $(VALGRIND_$*) $(if $(TESTS),-k '$(TESTS)' || [ $$?$* = 5portable ])

mutants: ## plant the bugs of tests/mutants/list.py one at a time and see each caught by a test (ARGS="part of a name")
	@deploy/setup.sh run test
	@$(MAKE) $(JOBS) all unit-tests
	@$(PYTHON) -B tests/mutants/plant.py $(ARGS)

SECONDS ?= 60
fuzz: ## fuzz the parsers under libFuzzer and sanitizers (FUZZ=name for one of them, SECONDS=60 for each)
	@deploy/setup.sh run test develop
	@$(MAKE) $(JOBS) BUILD=$(BUILD)/fuzz CC=clang FUZZ_MAIN=tests/fuzz/libfuzzer.c LDFLAGS=-fsanitize=fuzzer,address,undefined \
	  CFLAGS="$(SANITIZE) -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" \
	  $(patsubst $(BUILD)/%,$(BUILD)/fuzz/%,$(if $(FUZZ),$(BUILD)/tests/fuzz/$(FUZZ),$(FUZZERS)))
	@for name in $(if $(FUZZ),$(FUZZ),$(notdir $(FUZZERS))); do \
	  folder=$(BUILD)/fuzz/inputs/$$name; mkdir -p $$folder; \
	  MILLRACE_FUZZ_SEEDS=$$folder $(BUILD)/fuzz/tests/fuzz/$$name && echo "$$name: $(SECONDS) s" && \
	  $(BUILD)/fuzz/tests/fuzz/$$name -max_total_time=$(SECONDS) -timeout=20 -rss_limit_mb=2048 -max_len=65536 -verbosity=0 \
	    -print_final_stats=1 -artifact_prefix=$(BUILD)/fuzz/$$name- $$folder || exit 1; done

# The analyzer takes the lanes of a vector type for the bits of one number.
ANALYZE := -O2 -g -Werror -fanalyzer -Wno-analyzer-shift-count-overflow
SOURCE_FILES = $(sort $(foreach l,$(LAYERS),$(call sources,$(l))) \
  $(wildcard tests/unit/*/*.c tests/fuzz/*.c tests/hostile/*.c tests/sim/*.c tests/bench/*.c))
fmt: ## format the lines of C that differ from SINCE (the last commit) with clang-format
	@deploy/setup.sh develop
	git clang-format --extensions c,h $(or $(SINCE),HEAD)

lint: ## build with gcc and clang without a warning, then clang-tidy, cppcheck and gcc's analyzer
	@deploy/setup.sh run test develop
	@$(MAKE) $(JOBS) BUILD=$(BUILD)/lint-gcc CC=gcc CFLAGS="-O2 -g -Werror" all unit-tests
	@$(MAKE) $(JOBS) BUILD=$(BUILD)/lint-clang CC=clang CFLAGS="-O2 -g -Werror" all unit-tests
	@printf '%s\n' $(SOURCE_FILES) | \
	  xargs -P$(shell nproc) -I{} clang-tidy --quiet --warnings-as-errors='*' {} -- $(FLAGS) -I$(BUILD)/lint-clang
	cppcheck --quiet -j$(shell nproc) --error-exitcode=1 --std=c11 --enable=warning,performance '-D_Alignas(x)=' \
	  --suppressions-list=.cppcheck -I. -I$(BUILD)/lint-gcc $(LAYERS)
	@$(MAKE) $(JOBS) BUILD=$(BUILD)/lint-analyzer CC=gcc CFLAGS="$(ANALYZE)" all

# Where PyTorch cannot be installed ours is measured alone.
bench: ## training tokens/s beside PyTorch's on the example's shape
	@$(MAKE) bench-train ARGS="--cases example $(ARGS)"

bench-train: ## training and generation: tokens/s, shares of the machine's peaks, beside PyTorch (ARGS="--cases small --rounds 5 --real")
	@deploy/setup.sh run
	@deploy/setup.sh bench || true
	@$(MAKE) $(JOBS) all
	@MILLRACE_BUILD=$(abspath $(BUILD)) $(PYTHON) -B tests/bench/bench_train.py $(ARGS)

bench-quality: ## training loss beside PyTorch's on the same tokens, order and schedule
	@deploy/setup.sh run bench
	@$(MAKE) $(JOBS) all
	@deploy/example-corpus.sh corpus
	@MILLRACE_BUILD=$(abspath $(BUILD)) $(PYTHON) -B tests/bench/bench_quality.py $(ARGS)

# Reads shards as training does.
$(BUILD)/tests/bench/read_shards: $(BUILD)/tests/bench/read_shards.o $(call libraries,base config proto dataset model estimate workers) \
  Makefile $(FLAGS_USED)
	$(call say,bench,$@)
	$(call link)

bench-dataset: ## text to shards, and reading them, beside other tools (ARGS=--readers for more of them)
	@deploy/setup.sh run bench
	@$(MAKE) $(JOBS) all $(BUILD)/tests/bench/read_shards
	@MILLRACE_BUILD=$(abspath $(BUILD)) $(PYTHON) -B tests/bench/bench_dataset.py $(ARGS)

bench-memory: ## memory of coordinator and workers for 100 MB and 1 GB of text (ARGS="--megabytes 10000")
	@deploy/setup.sh run bench
	@$(MAKE) $(JOBS) all
	@MILLRACE_BUILD=$(abspath $(BUILD)) $(PYTHON) -B tests/bench/bench_memory.py $(ARGS)

bench-loop: ## the longest time for which the coordinator answers nobody, over 10,000 small shards (ARGS="--shards 100000")
	@deploy/setup.sh run
	@$(MAKE) $(JOBS) all
	@MILLRACE_BUILD=$(abspath $(BUILD)) $(PYTHON) -B tests/bench/bench_loop.py $(ARGS)

bench-kills: ## steps/s while a worker is killed every 2.5 s, beside those of the undisturbed run (ARGS="--every 5 --workers 4")
	@deploy/setup.sh run
	@$(MAKE) $(JOBS) all
	@MILLRACE_BUILD=$(abspath $(BUILD)) $(PYTHON) -B tests/bench/bench_kills.py $(ARGS)

bench-tokenizer: ## tokenizing MB/s beside every other tokenizer that can be installed
	@deploy/setup.sh run bench
	@$(MAKE) $(JOBS) all
	@MILLRACE_BUILD=$(abspath $(BUILD)) $(PYTHON) -B tests/bench/bench_tokenizer.py $(ARGS)

docs: all ## write docs/CONFIG.md again from the table of keys
	@$(BUILD)/millrace config --reference > docs/CONFIG.md.new && mv docs/CONFIG.md.new docs/CONFIG.md

install: all ## install binary, systemd units, documents and licences (DESTDIR, PREFIX)
	install -D -m 755 $(BUILD)/millrace $(DESTDIR)$(PREFIX)/bin/millrace
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/doc/millrace/docs
	for unit in $(notdir $(wildcard deploy/*.service)); do \
	  sed 's|/usr/local/|$(PREFIX)/|' deploy/$$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit; done
	install -m 644 README.md CONTRIBUTING.md LICENSE NOTICE pipeline.yaml $(DESTDIR)$(PREFIX)/share/doc/millrace
	install -m 644 docs/*.md $(DESTDIR)$(PREFIX)/share/doc/millrace/docs

clean: ## remove every output of a build
	rm -rf $(BUILD)

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

-include $(foreach l,$(LAYERS),$(patsubst %.o,%.d,$(call objects,$(l)))) \
  $(TEST_OBJECTS:.o=.d) $(SMALL_OBJECTS:.o=.d) $(SMALL)/tests/sim/main.d $(SMALL)/tests/unit/workers/simulation.d
