// The threads that run one step together: they meet at barriers, and sleep between steps.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ah {
// A count that only rises, and can be waited for. Waiting is a short spin, then giving the core up,
// then sleep: where something else wants the core, whoever is waited for may be what a spin keeps
// from running.
class Turn {
 public:
  unsigned now() const { return count_.load(std::memory_order_acquire); }
  void advance() {
    count_.fetch_add(1);
    // Either this sees the sleeper, or the sleeper, who counts itself first, sees the new count.
    if (sleepers_.load() == 0) return;
    const std::lock_guard<std::mutex> hold(mutex_);
    changed_.notify_all();
  }
  void wait_beyond(unsigned seen) {
    constexpr int kSpins = 2000, kYields = 20;  // some 30 microseconds if the core is free
    for (int i = 0; i < kSpins + kYields; ++i) {
      if (now() != seen) return;
      if (i >= kSpins) std::this_thread::yield();
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    sleepers_.fetch_add(1);
    std::unique_lock<std::mutex> hold(mutex_);
    changed_.wait(hold, [&] { return count_.load() != seen; });
    sleepers_.fetch_sub(1);
  }
 private:
  std::atomic<unsigned> count_{0};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

class Team {
 public:
  explicit Team(int size) : size_(size) {
    try {
      for (int id = 1; id < size_; ++id) threads_.emplace_back([this, id] { serve(id); });
    } catch (...) {  // as many as there are must end before they can be forgotten
      dismiss();
      throw;
    }
  }
  ~Team() { dismiss(); }
  int size() const { return size_; }
  // Run work(id) on every thread, the caller's as number 0, and return when all have ended.
  void run(const std::function<void(int)>& work) {
    work_ = &work;
    start_.advance();
    work(0);
    meet();
  }
  // Within run: wait until every thread has come here.
  void meet() {
    const unsigned seen = met_.now();
    if (arrived_.fetch_add(1) < size_ - 1) return met_.wait_beyond(seen);
    arrived_.store(0);
    met_.advance();
  }
 private:
  void serve(int id) {
    for (unsigned seen = 0;; ++seen, meet()) {
      start_.wait_beyond(seen);
      if (work_ == nullptr) return;
      (*work_)(id);
    }
  }
  void dismiss() {
    work_ = nullptr;
    start_.advance();
    for (auto& thread : threads_) thread.join();
  }
  const int size_;
  const std::function<void(int)>* work_ = nullptr;
  Turn start_, met_;
  std::atomic<int> arrived_{0};
  std::vector<std::thread> threads_;
};

// The part [first, last) of `count` things that is number `id` of `size`.
struct Part { int first, last; };
inline Part part_of(int count, int id, int size) {
  return {int(int64_t(count) * id / size), int(int64_t(count) * (id + 1) / size)};
}
}  // namespace ah
