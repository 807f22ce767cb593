#include "bnfold/files.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "support/model.h"

namespace bnfold::test {

namespace fs = std::filesystem;

namespace {

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    directory = fs::temp_directory_path() / ("bnfold-" + std::to_string(::getpid()));
    fs::create_directories(directory);
  }

  void TearDown() override { fs::remove_all(directory); }

  std::string path(const std::string& name) const { return directory / name; }

  std::string written(const std::string& name, const std::string& content) const {
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }

  static std::string content(const std::string& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  static std::string load_error(const std::string& file) {
    try {
      load(file);
    } catch (const LoadError& error) {
      return std::string(error.what()).substr(file.size());
    }
    return "no error";
  }

  static Model model() {
    Model double_it;
    return double_it.parameter("weight", at::full({2}, 2, at::kDouble)).forward("return x * self.weight");
  }

  fs::path directory;
};

TEST_F(Files, LoadsWhatItSaved) {
  save(model().module, path("model.pt"));
  EXPECT_EQ(load(path("model.pt")).forward({at::ones({2}, at::kDouble)}).toTensor()[0].item<double>(), 2);
}

TEST_F(Files, KeepsExtraFiles) {
  const ExtraFiles files = {{"names.txt", "cat,dog"}, {"table", std::string("\0\xff", 2)}};
  save(model().module, path("model.pt"), files);
  FileContent content;
  load(path("model.pt"), at::kCPU, &content);
  EXPECT_EQ(content.extra_files, files);
  EXPECT_EQ(content.devices, "cpu");
  save(model().module, path("model.pt"));
  load(path("model.pt"), at::kCPU, &content);
  EXPECT_TRUE(content.extra_files.empty());
}

TEST_F(Files, LeavesNothingBesideTheFile) {
  save(model().module, path("model.pt"));
  EXPECT_EQ(std::distance(fs::directory_iterator(directory), {}), 1);
}

TEST_F(Files, GivesTheFileTheUsualPermissions) {
  save(model().module, path("model.pt"));
  written("other", "");
  EXPECT_EQ(fs::status(path("model.pt")).permissions(), fs::status(path("other")).permissions());
}

TEST_F(Files, SaysWhatIsWrongWithAFile) {
  save(model().module, path("model.pt"));
  const std::string whole = content(path("model.pt"));
  EXPECT_EQ(load_error(path("none.pt")), ": there is no such file");
  EXPECT_EQ(load_error(directory), ": is a directory; give the path of a .pt or .pt2 file");
  EXPECT_EQ(load_error(written("empty.pt", "")), ": the file is empty");
  EXPECT_NE(load_error(written("text.pt", "hello, world")).find("not a TorchScript file"), std::string::npos);
  EXPECT_EQ(load_error(written("half.pt", whole.substr(0, whole.size() / 2))),
            ": the file is truncated or damaged; copy or save it again");
}

TEST_F(Files, LeavesTheOldFileWhereItCanNotWrite) {
  written("model.pt", "old");
  EXPECT_THROW(save(model().module, directory), SaveError);
  EXPECT_THROW(save(model().module, path("missing/model.pt")), SaveError);
  EXPECT_EQ(content(path("model.pt")), "old");
}

}  // namespace
}  // namespace bnfold::test
