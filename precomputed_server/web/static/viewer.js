// Neuroglancer (2.41.2 and before) writes its state into the address when 400 ms have passed since it began to read
// one, even while it still reads. A layer of annotations that was not read yet makes that fail, and the layer that is
// being read, the image, is lost. So its clock stands still while one piece of work is done without a pause.
(function () {
  "use strict";
  const now = Date.now;
  let told;
  Date.now = function () {
    if (told === undefined) {
      told = now.call(Date);
      queueMicrotask(function () {
        told = undefined;
      });
    }
    return told;
  };
})();
