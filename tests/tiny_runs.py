"""Tiny runs that are kept in a folder, for the tests of sessions."""

import signal
from dataclasses import replace
from itertools import count

import tiny
import torch
from forks import Child

from histream_core import runs as session
from histream_core.cost.cost import Cost
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Denoiser
from histream_core.plan.chunks import lengthen
from histream_core.plan.speed import DEFAULTS
from histream_core.runs.make import Making, make
from histream_core.runs.progress import counted, new_progress
from histream_core.runs.store.journal import read_manifest
from histream_core.runs.store.manifest import chain
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream
from histream_core.vae.decode import StreamingDecoder
from histream_core.vae.model import WanVAE

SETTINGS = session.Settings("demo", "histream", (32, 32), 16.0, "h264-mp4", "video.mp4", "float32")
SMALL = {"size": (16, 16)}
"""The size of the tiny VAE's pictures, as a setting."""

PROMPTS = {"a cat": 0, "a dog": 5}


def vae(seed=0):
    """A random VAE with a level less than Wan's: four times as wide as its latents, four frames for each of theirs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        small = WanVAE(dim=4, z_dim=4, dim_mult=(1, 1, 1), temporal_downsample=(True, True))
        return small.requires_grad_(False).eval()


MODEL, VAE = tiny.wan(), vae()


def plan(num_frames=14, **settings):
    return tiny.plan(num_frames=num_frames, **({"width": 32, "height": 32} | settings))


def section(prompt="a cat", first_chunk=0, recache=False):
    text = session.hash_tensor(tiny.text(PROMPTS[prompt]).context)
    return session.Section(first_chunk, prompt, text, recache)


def manifest(a_plan=None, *, model=MODEL, seeds=((0, 1),), sections=None, **settings):
    return session.Manifest(
        plan=a_plan or plan(),
        settings=replace(SETTINGS, **settings),
        sections=tuple(sections or [section()]),
        seeds=tuple(session.Seed(*pair) for pair in seeds),
        fingerprint={"model": session.fingerprint_weights(model), "vae": session.fingerprint_weights(VAE)},
        source={"model": "tiny"},
        made_with=session.environment(),
    )


class Run:
    """A session over the tiny models that counts the network's calls: `steps` that denoise, `passes` that cache."""

    def __init__(self, journal, *, model=MODEL, decoder=True, on_call=None, kv="full", **options):
        self.steps = self.passes = 0
        self.kv = kv
        self.denoise, self.journal, self.on_call = Denoiser(model), journal, on_call
        vae_decoder = StreamingDecoder(VAE, normalised=False, rollback=False) if decoder else None
        self.session = session.Session(journal, self.stream, vae_decoder, **options)

    def stream(self, a_plan, noise, inputs):
        caches = make_caches(a_plan, tiny.CONFIG, CacheOptions(kv=self.kv))
        prompts = prompts_of(self.journal.manifest)
        return Stream(a_plan, self.call, caches, noise, prompts, channels=4, inputs=inputs)

    def call(self, latent, step, cache, text):
        if self.on_call:
            self.on_call()
        self.steps += step.sigma > 0
        self.passes += step.sigma == 0
        return self.denoise(latent, step, cache, text)

    def chunks(self, first_decoded=0):
        return self.session.run(first_decoded)


def prompts_of(manifest):
    return [
        Prompt(tiny.text(PROMPTS[section.prompt]), section.first_chunk, section.recache)
        for section in manifest.sections
    ]


class Backend:
    """The tiny models as a backend; runs of it keep no embeddings."""

    device = decode_device = torch.device("cpu")
    speed = DEFAULTS

    def __init__(self, run):
        self.run = run

    def open_decoder(self):
        return self.run.session.decoder

    def new_progress(self, a_plan):
        return new_progress(Cost(MODEL.config, a_plan))

    def sample(self, a_plan, prompts, progress, work):
        def open_stream(*what):
            stream = self.run.stream(*what)
            stream.denoise = counted(stream.denoise, progress)
            return stream

        return work(open_stream)


def finish(journal, first_decoded=0, **options):
    """Latents and frames of a run, to its end."""
    with journal:
        chunks = list(Run(journal, **options).chunks(first_decoded))
    return [chunk.latent for chunk in chunks], [chunk.frames for chunk in chunks]


def complete(journal, report=lambda progress: None, **options):
    """Take a run to its end, video and all; its folder comes back."""
    with journal:
        snapshots = options.get("snapshots")
        how = Making(snapshots=snapshots, report=report)
        make(Backend(Run(journal, **options)), journal, how, prompts=prompts_of(journal.manifest))
    return journal.folder


def files_in(folder):
    """Contents of a run's folder, without the lock and the manifest, which names the source of a branch."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("lock", "manifest.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def begin(folder, num_chunks, a_manifest=None, **options):
    """Start a run and stop it after so many chunks."""
    with session.start_or_resume(folder, a_manifest or manifest()) as journal:
        chunks = Run(journal, **options).chunks()
        for chunk in chunks:
            if chunk.chunk.index == num_chunks - 1:
                chunks.close()
    return folder


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def start_and_hang(folder, call):
    """A child that works on a run of ten chunks, says so at that network call, and goes no further."""

    def work(say):
        calls = count()

        def hang():
            if next(calls) == call:
                say.write("here\n")
                signal.pause()

        with session.start_or_resume(folder, manifest(plan(30))) as journal:
            list(Run(journal, on_call=hang, snapshots=session.Snapshots(every=2)).chunks())

    child = Child(work)
    assert child.said.readline() == "here\n"
    return child


def retry(source, folder, chunk, seed):
    """A run that shares the first chunks of another and goes on with another seed."""
    return session.create_branch(source, folder, chunk, session.branched(read_manifest(source), chunk, seed=seed))


def recipes(a_manifest):
    """The recipes of all chunks."""
    return [*chain(a_manifest)]


def check_longer_and_retried(folder, short, long):
    """A short run that is made as long as the long one has its latents, and so has a retry of the long one."""
    options = {"decoder": False}
    wanted, _ = finish(session.create_run(folder / "long", long), **options)
    with session.create_run(folder / "short", short) as journal:
        list(Run(journal, **options).chunks())
        session.lengthen_run(journal, lengthen(short.plan, long.plan.num_latent_frames))
    assert same(finish(session.resume(folder / "short"), **options)[0], wanted)
    other = retry(folder / "long", folder / "other", 2, seed=1)  # the seed that it had
    assert same(finish(other, **options)[0], wanted)
