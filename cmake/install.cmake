# For C and C++ programs: header, library, CMake package and pkg-config file, in a tree that can be moved afterwards.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/squeezebert)

install(TARGETS squeezebert EXPORT squeezebert-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT core
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT core
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES csrc/include/squeezebert.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT core)

install(EXPORT squeezebert-targets NAMESPACE squeezebert:: DESTINATION ${cmake_folder} COMPONENT core)
configure_package_config_file(cmake/squeezebert-config.cmake.in squeezebert-config.cmake
                              INSTALL_DESTINATION ${cmake_folder})
write_basic_package_version_file(squeezebert-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/squeezebert-config.cmake ${PROJECT_BINARY_DIR}/squeezebert-config-version.cmake
        DESTINATION ${cmake_folder} COMPONENT core)

# The .pc file finds its prefix from where it lies itself; with an absolute libdir, which cannot be moved, it is the
# configured one, as in the CMake package.
set(pc_prefix ${CMAKE_INSTALL_PREFIX})
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  file(RELATIVE_PATH up /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  set(pc_prefix "\${pcfiledir}/${up}")
endif()
foreach(folder LIBDIR INCLUDEDIR)
  set(pc_${folder} "\${prefix}")
  cmake_path(APPEND pc_${folder} ${CMAKE_INSTALL_${folder}}) # an absolute one replaces the prefix
endforeach()
list(TRANSFORM SQUEEZEBERT_CXX_LIBRARIES PREPEND -l OUTPUT_VARIABLE pc_private)
list(APPEND pc_private -pthread)
list(JOIN pc_private " " pc_private)
if(NOT BUILD_SHARED_LIBS) # without --static too
  set(pc_public ${pc_private})
endif()
configure_file(cmake/squeezebert.pc.in squeezebert.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/squeezebert.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT core)
